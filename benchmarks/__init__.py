"""Ours and a peer on the same work, in one run, on one thread: ``python -m benchmarks``."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch load; workers inherit it
