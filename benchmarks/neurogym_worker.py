"""Runs inside the virtual environment of the peer neurogym: makes trials of its twenty tasks and times them.

Of this project it imports benchmarks.measure and benchmarks.serve alone.
"""

import warnings

import numpy as np
from neurogym.envs.collections import yang19

from benchmarks.measure import measured
from benchmarks.serve import Arrays, serve

TASKS = (
    *("go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "multidm"),
    *("dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multidlydm", "dms", "dnms", "dmc", "dnmc"),
)


def trials(n_trials: np.ndarray, dt: np.ndarray, seed: np.ndarray) -> Arrays:
    """CPU seconds and steps, summed over trials, of each of the twenty tasks."""
    seconds, steps = [], []
    for name in TASKS:
        env = getattr(yang19, name)(dt=int(dt), dim_ring=32)
        env.seed(int(seed))
        env.reset()

        def make(env=env) -> int:
            total = 0
            for _ in range(int(n_trials)):
                env.new_trial()
                total += len(env.ob)
            return total

        work = measured(make)
        seconds.append(work.seconds)
        steps.append(work.result)
    return {"seconds": np.array(seconds), "steps": np.array(steps)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve({"trials": trials})
