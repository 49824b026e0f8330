"""`python -m sweeps.cli`, where `lth` is not on the path."""

from sweeps.cli import run

run()
