"""What a worker process is told to do: compute with one thread, and end with the process that drives it.

Imports little, as each worker imports it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits  # comes with scikit-learn


@contextmanager
def one_thread() -> Iterator[None]:
    """Have BLAS, OpenMP and torch, as far as they are loaded, compute with a single thread until the block ends."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    try:
        with threadpool_limits(limits=1):
            if torch:
                torch.set_num_threads(1)
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


def alone(task: Callable[[], Any]) -> Any:
    """The result of a task, computed with a single thread."""
    with one_thread():
        return task()


def follow(driver: int) -> None:
    """Leave Ctrl-C to the driver, the parent with this process id, and end with it, whatever is going on."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
