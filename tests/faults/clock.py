"""Put on Python's path as `sitecustomize`: a process whose clock goes ahead of the others'.

The store's clock, that of its file system, stays as it is. (libfaketime moves the monotonic clock
too, and then waits with a timeout hang.)
"""

import os
import time

AHEAD = float(os.environ.get("CLOCK_AHEAD", 0))
"""Seconds."""

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + AHEAD
time.time_ns = lambda: _time_ns() + int(AHEAD * 1e9)
