"""One thread, and property tests that draw the same examples every time."""

import torch
from hypothesis import settings

# Two trials on two threads beat one on two; and sums are then added in one order on every machine.
torch.set_num_threads(1)

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, max_examples=60
)
settings.load_profile("repeatable")
