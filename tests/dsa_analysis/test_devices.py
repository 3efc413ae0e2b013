"""Everything stays on the device of its input: one tensor made elsewhere would fail on, or slow down, every GPU."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
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
    noise_floor,
    null_distances,
    procrustes_distance,
    residuals,
    stability,
    standardize,
    surrogates,
    trial_replicates,
)
from dsa_analysis.alignment import align_pairs
from dsa_analysis.climb import one_by_one
from dsa_analysis.grassmann import as_rates, modes

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

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


@dataclass(frozen=True)
class Data:
    """Operators a and b (4, 6, 6), trials x (5, 60, 3), inputs u (5, 60, 2), all on one device."""

    a: Tensor
    b: Tensor
    x: Tensor
    u: Tensor

    @property
    def narrow(self) -> Tensor:
        return self.x * self.x.new_tensor([1, 1, 1e-6])

    @property
    def systems(self) -> dict[str, Tensor]:
        return {"a": self.x, "b": self.x.flip(0) ** 3 / 100, "c": self.x.flip(1)}

    @property
    def driven(self) -> tuple[Tensor, Tensor]:
        """Pairs of (4, 4 + 2) matrices [A, B]."""
        return self.a[:, :4], self.b[:, :4]


def data(device: str) -> Data:
    """The same numbers on every device."""
    a, b = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(1)
    u = torch.randn(5, 60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return Data(*(values.to(device) for values in (a, b, x, u)))


SETTINGS = {"n_delays": 4, "rank": 5, "progress": False}


def solved(a: Tensor, b: Tensor, **settings: Any) -> list[Tensor]:
    """What is unique in an alignment. Enough starts that CPU and GPU, whose budgets differ, find the same tops."""
    found = align(a, b, n_starts=64, **settings)
    return [found.distance, found.lower_bound]


def forecast(x: Tensor, **settings: Any) -> Tensor:
    """What is unique in an operator: directions have no sign."""
    return fit_operator(x, **settings).predict(x, 2)


# Each call takes `Data` and returns numbers that are the same on every device.
CALLS = {
    "align": lambda d: solved(d.a, d.b),
    "align in SO(n)": lambda d: solved(d.a, d.b, group="SO", remove_trace=True),
    "align odd": lambda d: solved(d.a[:, :5, :5], d.b[:, :5, :5]),
    "align tight": lambda d: solved(d.a, d.b, certificate="tight"),
    "align_pairs": lambda d: align_pairs(d.a, *torch.triu_indices(4, 4, 1, device=d.a.device), n_starts=64).distance,
    "delay_embed": lambda d: delay_embed(d.x, 3, 2),
    "fit": lambda d: forecast(d.x, n_delays=4, rank=5),
    "fit spaced": lambda d: forecast(d.x, n_delays=3, rank=5, delay_interval=2, steps_ahead=3, center=False),
    "fit few windows": lambda d: forecast(d.x[:1, :20], n_delays=10, rank=2),
    "fit small directions": lambda d: forecast(d.narrow, n_delays=1, rank=3),
    "fit estimators": lambda d: [
        forecast(d.x, n_delays=3, rank=4, estimator=estimator)
        for estimator in ("total_least_squares", "noise_compensated", "signal_weighted")
    ],
    "fit driven": lambda d: fit_driven_operator(d.x, d.x.roll(1, 1), n_delays=2, rank=3, delay_interval=2).predict(
        d.x, d.x
    ),
    "fit subspace": lambda d: fit_driven_operator(d.x, d.u, n_delays=3, rank=3, estimator="subspace").predict(d.x, d.u),
    "compare driven": lambda d: [
        METRICS[name].distances(*d.driven, group=group, n_starts=64).distance
        for name in ("state", "input", "joint")
        for group in ("O", "SO")
    ],
    "compare": lambda d: [
        METRICS[name].distances(d.a, d.b, remove_trace=True, n_starts=64).distance
        for name in ("angular", "euclidean", "frobenius")
    ],
    "eigenvalues": lambda d: METRICS["spectral"].distances(torch.linalg.eigvals(d.a), torch.linalg.eigvals(d.b)),
    "cka": lambda d: cka_distance(d.x, d.x.flip(0)),
    "procrustes": lambda d: procrustes_distance(d.x, d.x.flip(0)),
    "residuals": lambda d: residuals(d.x, list("aabbb")),
    "standardize": lambda d: standardize(d.x),
    "surrogates": lambda d: [
        surrogates(d.x, kind, seed=0) for kind in ("phase", "iaaft", "shuffle_times", "shuffle_trials")
    ],
    "modes": lambda d: METRICS["sgot"].distances(
        *(torch.stack([as_rates(modes(x, "x"), 0.1, 0.2, "x") for x in side]) for side in (d.a, d.b))
    ),
}

# The same, but the results are tables, which are on the CPU.
TABLES = {
    "compare": lambda d: [
        compare(d.systems, metric=metric, **(SETTINGS if embedded else {"progress": False})).distances
        for metric, embedded in (
            ("angular", True),
            ("spectral", True),
            ("sgot", True),
            ("cka", False),
            ("procrustes", False),
        )
    ],
    "compare over a chosen horizon": lambda d: (
        compare(d.systems, n_delays=4, rank=5, horizon="auto", dt=1, progress=False).distances
    ),
    "noise_floor": lambda d: noise_floor(d.systems, n_splits=2, **SETTINGS).to_numpy(),
    "replicates": lambda d: trial_replicates(d.systems, compare(d.systems, **SETTINGS), n_replicates=2, progress=False),
    "null_distances": lambda d: [
        null_distances(d.systems, kind=kind, n=19, **SETTINGS).distances for kind in ("phase", "exchange")
    ],
    "stability": lambda d: (
        stability(
            {**d.systems, "d": 2 * d.x.sin()}, over={"rank": [4, 5], "reduction": ["all", 2]}, **SETTINGS
        ).distances
    ),
}


def arrays(result: Any) -> list[Tensor]:
    """A result as a list of tensors."""
    return [torch.as_tensor(x) for x in (result if isinstance(result, list) else [result])]


@pytest.mark.filterwarnings("ignore:system:UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_no_tensor_is_made_without_naming_its_device(call):
    with NamedDevices() as mode:
        CALLS[call](data("cpu"))
    assert mode.strays == []


def test_the_watch_sees_a_stray():
    with NamedDevices() as mode:
        torch.zeros(2), torch.eye(2, device="cpu")
    assert mode.strays == ["zeros"]


@pytest.mark.parametrize("shape", [(10_000, 3, 3), (700, 17, 3, 3), (5, 9000, 3, 3)])
def test_gpus_get_batches_that_cusolver_takes(shape):
    """It refuses those of some 30,000 matrices. Tensors of the device "meta" take the path of GPUs."""
    sizes = []

    def decompose(x: Tensor) -> Tensor:
        sizes.append(x[..., 0, 0].numel())
        return x

    assert one_by_one(decompose, torch.empty(shape, device="meta")).shape == shape
    assert max(sizes) <= max(4096, shape[1] if len(shape) == 4 else 0)
    assert sum(sizes) == torch.Size(shape[:-2]).numel()


@cuda
@pytest.mark.filterwarnings("ignore:system:UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_results_on_cuda_are_those_of_the_cpu(call):
    here, there = (arrays(CALLS[call](data(device))) for device in ("cpu", "cuda"))
    assert all(x.is_cuda for x in there)
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(y.cpu(), x, rtol=1e-6, atol=1e-6)  # tolerance at which climbs and bounds stop


@cuda
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", TABLES)
def test_tables_from_cuda_are_those_of_the_cpu(call):
    here, there = (arrays(TABLES[call](data(device))) for device in ("cpu", "cuda"))
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-6, atol=1e-6)


@cuda
@pytest.mark.filterwarnings("ignore:.*systems:UserWarning")
@pytest.mark.parametrize("metric", ["angular", "spectral", "sgot", "cka", "procrustes"])
def test_systems_of_mixed_devices_and_precisions_are_compared_where_asked(metric):
    x = data("cpu").x
    systems = {"a": x, "b": x.flip(0).cuda(), "c": x.float().numpy()}
    embedding = {} if METRICS[metric].needs == "trials" else {"n_delays": 4, "rank": 5}
    results = [
        compare(given, metric=metric, **embedding, device=device, progress=False).distances
        for given, device in (
            (systems, "cuda"),
            (systems, "cpu"),
            ({k: torch.as_tensor(v).cpu() for k, v in systems.items()}, None),
        )
    ]
    power = 1 / getattr(METRICS[metric], "error_exponent", 1.0)  # distances near 0 are a root of rounding errors
    for other in results[1:]:
        assert abs(results[0] ** power - other**power).max() < (1e-7 if power == 1 else 1e-12)


@cuda
def test_trajectories_start_the_same_on_cuda():
    here, there = lorenz(2, 20, seed=0), lorenz(2, 20, seed=0, device="cuda")
    torch.testing.assert_close(there.cpu(), here, rtol=1e-10, atol=0)
