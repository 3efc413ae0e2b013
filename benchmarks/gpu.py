"""The same work on one CPU thread and on a GPU: `python -m benchmarks.gpu`.

Wall time, since a GPU's time is no time of the process. Each side runs twice and the second run counts; the GPU is
waited for. Results of both are compared.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.table import Row, markdown
from benchmarks.training_step import Hand, difference, problem
from benchmarks.work import network_activity
from dsa_analysis import align, compare, fit_operator
from multitask.network import NetworkParameters, make_network


def waited_for(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` gives at its second call, and the seconds that took."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def row(case: str, work: Callable[[str], Any], apart: Callable[[Any, Any], str]) -> Row:
    """``work`` on both devices; ``apart`` tells how its two results differ."""
    (there, fast), (here, slow) = (waited_for(lambda device=device: work(device)) for device in ("cuda", "cpu"))
    return Row("GPU", case, "s", [fast], [slow], 1, apart(here, there))


def pairs(n: int, n_pairs: int) -> Row:
    first, second = torch.randn(2, n_pairs, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))

    def apart(here: Tensor, there: Tensor) -> str:
        gap = there.cpu() - here
        return f"GPU higher in {int((gap > 1e-5).sum())}, lower in {int((gap < -1e-5).sum())}"

    return row(f"{n_pairs} pairs, random matrices, n = {n}", lambda d: align(first.to(d), second.to(d)).distance, apart)


def fits(shape: tuple[int, int, int], n_delays: int) -> Row:
    trials = torch.as_tensor(network_activity(shape, seed=0))
    return row(
        f"fit, {'x'.join(map(str, shape))}, {n_delays} delays",
        lambda d: fit_operator(trials.to(d), n_delays=n_delays, rank=20).eigenvalues.abs(),
        lambda here, there: f"moduli of eigenvalues differ by {(there.cpu() - here).abs().max():.0e}",
    )


def static(metric: str, n_systems: int) -> Row:
    systems = {f"{i}": x[None] for i, x in enumerate(network_activity((n_systems, 2000, 256), seed=0))}
    return row(
        f"{metric}, {n_systems} systems of 2000 x 256",
        lambda d: compare(systems, metric=metric, device=d, progress=False).distances,
        lambda here, there: f"differ by {abs(there - here).max():.0e}",
    )


def training(cell: str, n_units: int, n_networks: int) -> Row:
    network = make_network(NetworkParameters(n_rnn=n_units, rnn_type=cell), n_networks)
    sides = {device: Hand(network.to(device)) for device in ("cuda", "cpu")}
    batches = {device: tuple(x.to(device) for x in problem()) for device in sides}
    gradients = [side.gradients(*batches[device], None) for device, side in sides.items()]
    alone = [[x.cpu()[[i]] for x in gradients[0]] for i in range(n_networks)]
    return replace(
        row(
            f"training step, {n_networks} x {n_units} {cell}", lambda d: sides[d].step(*batches[d], None), lambda *_: ""
        ),
        outcome=f"gradients agree to {difference(gradients[1], alone):.0e}",
    )


def run() -> Iterator[Row]:
    torch.set_num_threads(1)
    for n, n_pairs in ((10, 28), (10, 2000), (20, 200), (50, 20)):
        yield pairs(n, n_pairs)
    for shape, n_delays in (((20, 200, 64), 10), ((100, 500, 128), 20)):
        yield fits(shape, n_delays)
    yield static("cka", 20)
    yield static("procrustes", 20)
    for cell, n_units, n_networks in (
        ("LeakyRNN", 64, 8),
        ("LeakyRNN", 256, 8),
        ("LeakyRNN", 256, 64),
        ("GRU", 256, 8),
    ):
        yield training(cell, n_units, n_networks)


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("python -m benchmarks.gpu needs a GPU")
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    for found in run():
        print(markdown([found]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
