"""The loop of a worker: jobs in on standard input, arrays out; runs in the peers' environments.

Each line names a job, an .npz file with its arguments and the .npz file to write; the answer is the line "done".
"""

import os
import sys
from collections.abc import Callable, Mapping

import numpy as np

Arrays = dict[str, np.ndarray]


def serve(jobs: Mapping[str, Callable[..., Arrays]]) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peer prints must not pass for an answer
    for line in sys.stdin:
        job, source, target = line.rstrip("\n").split("\t")
        with np.load(source, allow_pickle=False) as arguments:
            result = jobs[job](**arguments)
        np.savez(target, allow_pickle=False, **result)
        print("done", file=answers)
