"""`python -m sweeps.cli`, for an environment without `lth` on its path."""

from sweeps.cli import run

run()
