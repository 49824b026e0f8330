"""The science: find lottery tickets, in a notebook or under a sweep.

for level in find_tickets(TicketSpec()):
    print(level)
"""

from lth_core.errors import LthError
from lth_core.lottery import find_tickets
from lth_core.spec import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.store import open_store
from lth_core.ticket import Ticket, load_ticket
from lth_core.train import Trainer

__all__ = [
    "DataSpec",
    "LthError",
    "ModelSpec",
    "PruneSpec",
    "Ticket",
    "TicketSpec",
    "TrainSpec",
    "Trainer",
    "find_tickets",
    "load_ticket",
    "open_store",
]
