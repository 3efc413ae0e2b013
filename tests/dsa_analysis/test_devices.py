"""Everything stays on the device of its input: one tensor made elsewhere would fail on, or slow down, every GPU."""

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from dsa_analysis import (
    METRICS,
    align,
    cka_distance,
    compare,
    delay_embed,
    fit_driven_operator,
    fit_operator,
    lorenz,
    procrustes_distance,
)
from dsa_analysis.alignment import align_pairs
from dsa_analysis.grassmann import as_rates, modes

FACTORIES = ("empty", "zeros", "ones", "full", "eye", "arange", "linspace", "rand", "randn", "randperm", "tensor")


class NamedDevices(TorchFunctionMode):
    """Collects tensors created without saying where: they are on the CPU, wherever the input is.

    Draws from a generator are on the CPU by intention, to be the same on every device. (By the time a dispatch mode
    sees a call, torch has filled in the device.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.strays: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in FACTORIES and not {"device", "generator"} & set(kwargs):
            self.strays.append(func.__name__)
        return func(*args, **kwargs)


A, B = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
X = torch.randn(5, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(1)
U = torch.randn(5, 60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
NARROW, PAIRS = X * torch.tensor([1, 1, 1e-6]), torch.arange(4)

CALLS = {
    "align": lambda: align(A, B),
    "align in SO(n)": lambda: align(A, B, group="SO", remove_trace=True),
    "align odd": lambda: align(A[:, :5, :5], B[:, :5, :5], n_starts=4),
    "align_pairs": lambda: align_pairs(torch.cat([A, B]), PAIRS, PAIRS + 4),
    "delay_embed": lambda: delay_embed(X, 3, 2),
    "fit": lambda: fit_operator(X, n_delays=4, rank=5),
    "fit spaced": lambda: fit_operator(X, n_delays=3, rank=5, delay_interval=2, steps_ahead=3, center=False),
    "fit few windows": lambda: fit_operator(X[:1, :20], n_delays=10, rank=2),
    "fit small directions": lambda: fit_operator(NARROW, n_delays=1, rank=3),
    "fit driven": lambda: fit_driven_operator(X, X.roll(1, 1), n_delays=2, rank=3, delay_interval=2).predict(X, X),
    "fit subspace": lambda: fit_driven_operator(X, U, n_delays=3, rank=3, estimator="subspace").predict(X, U),
    "compare driven": lambda: [
        METRICS[name].distances(A[:, :4], B[:, :4], group=group)  # (4, 4 + 2)
        for name in ("state", "input", "joint")
        for group in ("O", "SO")
    ],
    "compare": lambda: [
        METRICS[name].distances(A, B, remove_trace=True) for name in ("angular", "euclidean", "frobenius")
    ],
    "eigenvalues": lambda: METRICS["spectral"].distances(torch.linalg.eigvals(A), torch.linalg.eigvals(B)),
    "modes": lambda: METRICS["sgot"].distances(
        *(torch.stack([as_rates(modes(x, "x"), 0.1, 0.2, "x") for x in side]) for side in (A, B))
    ),
    "compare modes": lambda: compare({"a": X, "b": X.flip(0)}, n_delays=2, rank=3, metric="sgot", progress=False),
    "cka": lambda: cka_distance(X, X.flip(0)),
    "procrustes": lambda: procrustes_distance(X, X.flip(0)),
}


@pytest.mark.filterwarnings("ignore:system:UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_no_tensor_is_made_without_naming_its_device(call):
    with NamedDevices() as mode:
        CALLS[call]()
    assert mode.strays == []


def test_the_watch_sees_a_stray():
    with NamedDevices() as mode:
        torch.zeros(2), torch.eye(2, device="cpu")
    assert mode.strays == ["zeros"]


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@cuda
@pytest.mark.parametrize("settings", [{}, {"group": "SO", "remove_trace": True}])
def test_alignment_on_cuda_is_that_of_the_cpu(settings):
    here, there = align(A, B, n_starts=64, **settings), align(A.cuda(), B.cuda(), n_starts=64, **settings)
    assert there.distance.is_cuda
    torch.testing.assert_close(there.distance.cpu(), here.distance, rtol=0, atol=1e-8)
    torch.testing.assert_close(there.lower_bound.cpu(), here.lower_bound, rtol=0, atol=1e-8)


@cuda
@pytest.mark.filterwarnings("ignore:system:UserWarning")
@pytest.mark.parametrize("settings", [{"n_delays": 4, "rank": 5}, {"n_delays": 30, "rank": 5, "delay_interval": 2}])
def test_fit_on_cuda_is_that_of_the_cpu(settings):
    here, there = fit_operator(X, **settings), fit_operator(X, device="cuda", **settings)
    assert there.matrix.is_cuda
    torch.testing.assert_close(there.eigenvalues.cpu(), here.eigenvalues, rtol=0, atol=1e-8)
    torch.testing.assert_close(there.predict(X.cuda(), 2).cpu(), here.predict(X, 2), rtol=0, atol=1e-6)


@cuda
@pytest.mark.filterwarnings("ignore:.*systems:UserWarning")
@pytest.mark.parametrize("metric", ["angular", "spectral", "sgot", "cka", "procrustes"])
def test_systems_of_mixed_devices_and_precisions_are_compared_where_asked(metric):
    systems = {"a": X, "b": X.flip(0).cuda(), "c": X.float().numpy()}
    embedding = {} if METRICS[metric].needs == "trials" else {"n_delays": 4, "rank": 5}
    results = [
        compare(given, metric=metric, **embedding, device=device, progress=False).distances
        for given, device in (
            (systems, "cuda"),
            (systems, "cpu"),
            ({k: torch.as_tensor(v).cpu() for k, v in systems.items()}, None),
        )
    ]
    for other in results[1:]:
        assert abs(results[0] - other).max() < 1e-7


@cuda
def test_trajectories_start_the_same_on_cuda():
    here, there = lorenz(2, 20, seed=0), lorenz(2, 20, seed=0, device="cuda")
    torch.testing.assert_close(there.cpu(), here, rtol=1e-10, atol=0)
