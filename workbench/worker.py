"""What worker processes do: compute with one thread, and end when the process that started them ends.

Imports little, because each worker imports it.
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
    """Limit BLAS, OpenMP and torch, if they are loaded, to one thread until the block ends."""
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
    """Run a task with one thread and return its result."""
    with one_thread():
        return task()


def follow(driver: int) -> None:
    """Ignore Ctrl-C, which the driver handles, and end this process as soon as the driver has ended.

    Parameters
    ----------
    driver : int
        Process id of the driver, the parent of this process.
    """

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
