"""CPU seconds and memory of a piece of work, and the machine's noise; runs in the peers' environments too."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Measured(NamedTuple):
    """What the work gave, its CPU seconds, and the peak of the memory it took in MB (nan where unknown)."""

    result: Any
    seconds: float
    megabytes: float


def resident(field: str) -> float:
    """Resident memory of this process in MB, now ("VmRSS") or at most ("VmHWM"); nan on systems without /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def measured(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Measured:
    """Call ``work`` once and measure it."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # proc(5): sets the peak to what is resident now
    before, start = resident("VmRSS"), time.process_time()
    result = work(*args, **kwargs)
    seconds = time.process_time() - start
    return Measured(result, seconds, resident("VmHWM") - before)


def calibrate() -> float:
    """CPU seconds of a fixed matrix product: its spread over a run is the machine's noise."""
    a = np.full((600, 600), 0.5)
    return measured(np.linalg.multi_dot, [a] * 6).seconds
