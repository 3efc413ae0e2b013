"""What holds whatever is recorded: systems are built from eigenvalues, and all that could matter is drawn.

How many systems, trials, samples and channels; lengths of trials equal or not; delays, their interval, steps ahead and
rank; precision and order in memory. What fails shrinks to one plane of rotation seen once.
"""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dsa_analysis import (
    Comparison,
    align,
    auroc_interval,
    choose_embedding,
    compare,
    explain,
    fit_operator,
    lorenz,
    mantel,
    noise_floor,
    permanova,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*(cut at rank|transitions for rank|compared at rank):UserWarning")

Modes = list[tuple[float, float]]


class Case(NamedTuple):
    """A recording: trials (n_times_i, n_channels) float64, how to embed it, and the modes of its system."""

    trials: list[Tensor]
    embedding: dict[str, Any]
    modes: Modes


def plane(radius: float, angle: float) -> Tensor:
    return radius * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()


def record(modes: Modes, lengths: list[int], n_channels: int, seed: int, noise: float) -> list[Tensor]:
    """x(t + 1) = L x(t) + noise, L normal with pairs radius exp(+-i angle), seen in channels under noise of a tenth."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    L, trials = torch.block_diag(*(plane(*mode) for mode in modes)), []
    size = max(len(L), n_channels)
    seen = torch.linalg.qr(normal(size, size))[0][: len(L), :n_channels]
    for n_times in lengths:
        x = [normal(len(L))]
        for _ in range(n_times - 1):
            x.append(L @ x[-1] + noise * normal(len(L)))
        trials.append(torch.stack(x) @ seen + 0.1 * noise * normal(n_times, n_channels))
    return trials


some_modes = st.lists(st.tuples(st.floats(0.6, 0.95), st.floats(0, 3)), min_size=1, max_size=3)
seeds = st.integers(0, 10_000)


@st.composite
def embeddings(draw: st.DrawFn, n_channels: int) -> dict[str, Any]:
    n_delays = draw(st.integers(1, 4))
    return {
        "n_delays": n_delays,
        "rank": draw(st.integers(1, min(6, n_delays * n_channels))),
        "delay_interval": draw(st.integers(1, 3)),
        "steps_ahead": draw(st.integers(1, 3)),
    }


@st.composite
def lengths(draw: st.DrawFn, embedding: dict[str, Any]) -> list[int]:
    """Of 1 to 4 trials, equal or ragged, none too short."""
    least = (embedding["n_delays"] - 1) * embedding["delay_interval"] + 1 + embedding["steps_ahead"]
    extra = draw(st.lists(st.integers(15, 40), min_size=1, max_size=4))
    return [least + n for n in (extra if draw(st.booleans()) else [extra[0]] * len(extra))]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_channels = draw(st.integers(1, 4))
    embedding = draw(embeddings(n_channels))
    modes = draw(some_modes)
    return Case(record(modes, draw(lengths(embedding)), n_channels, draw(seeds), noise=0.5), embedding, modes)


@st.composite
def sets(draw: st.DrawFn) -> tuple[dict[str, list[Tensor]], dict[str, Any]]:
    """One to four systems, unlike in modes, trials, lengths and channels, and an embedding that fits all."""
    embedding = draw(embeddings(n_channels=1))
    systems = {
        name: record(draw(some_modes), draw(lengths(embedding)), draw(st.integers(1, 3)), draw(seeds), noise=0.5)
        for name in "abcd"[: draw(st.integers(1, 4))]
    }
    return systems, embedding


# ---- one recording ---------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(modes=some_modes, seed=seeds, extra=st.integers(0, 2), factor=st.integers(1, 3), data=st.data())
def test_a_linear_system_gives_back_its_eigenvalues_however_it_is_sampled(modes, seed, extra, factor, data):
    """Every k-th sample, or k steps ahead, raises them to the power k; the spacing of delays leaves them alone."""
    n = 2 * len(modes)
    radii, angles = np.array(modes).T
    truth = (radii * np.exp(1j * np.array([angles, -angles]))).ravel()
    embedding = data.draw(embeddings(n)) | {"rank": n, "center": False, "ridge": 0}
    trials = record(modes, [60] * (4 * n), n + extra, seed, noise=0)
    for key, power in (("steps_ahead", embedding["steps_ahead"]), ("subsampled", embedding["steps_ahead"] * factor)):
        seen = [trial[::factor] for trial in trials] if key == "subsampled" else trials
        found = fit_operator(seen, **embedding).eigenvalues.numpy()
        gaps = abs(np.subtract.outer(found, truth**power))
        # normal, so that only a second pair at the same place makes an eigenvalue sensitive: no more than the root
        assert gaps[linear_sum_assignment(gaps**2)].max() < 1e-6


LAYOUTS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "Fortran order": lambda x, path: np.asfortranarray(x),
    "every second of twice as many": lambda x, path: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards twice": lambda x, path: x[::-1, ::-1].copy()[::-1, ::-1],
    "time on the last axis in memory": lambda x, path: x.transpose(0, 2, 1).copy().transpose(0, 2, 1),
    "big-endian": lambda x, path: x.astype(x.dtype.newbyteorder(">")),
    "read-only memory map": lambda x, path: np.load(path, mmap_mode="r"),
    "tensor": lambda x, path: torch.from_numpy(x),
    "tensor with gradient": lambda x, path: torch.from_numpy(x).clone().requires_grad_(),
    "list of trials": lambda x, path: list(x),
}


@settings(max_examples=25)
@given(case=cases(), dtype=st.sampled_from(["f4", "f8"]), layout=st.sampled_from(sorted(LAYOUTS)))
def test_order_in_memory_changes_no_bit_and_nothing_is_written_to(case, dtype, layout, tmp_path_factory):
    shortest = min(map(len, case.trials))
    x = np.stack([trial[:shortest].numpy() for trial in case.trials]).astype(dtype)
    path = tmp_path_factory.mktemp("map") / "x.npy"
    np.save(path, x)
    came, embedding = LAYOUTS[layout](x, path), dict(case.embedding)
    before = copy.deepcopy(came)
    expected, found = (fit_operator(given, **embedding) for given in (x, came))
    for name in ("matrix", "singular_values", "basis", "mean", "noise_variance"):
        assert torch.equal(getattr(found, name).nan_to_num(-1), getattr(expected, name).nan_to_num(-1))
        assert not getattr(found, name).requires_grad
    assert embedding == case.embedding
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(_plain(came), _plain(before), strict=True))


def _plain(x: Any) -> list[Any]:
    return [x.detach()] if isinstance(x, Tensor) else list(x)


SAME: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "trials in another order": lambda trials: trials[::-1],
    "all trials twice": lambda trials: trials + trials,
    "a million times as large": lambda trials: [1e6 * x for x in trials],
    "a millionth as large": lambda trials: [1e-6 * x for x in trials],
    "shifted": lambda trials: [x + 3 for x in trials],
    "turned or mirrored": lambda trials: [x @ haar(1, x.shape[1], seed=0)[0] for x in trials],
    "channels exchanged": lambda trials: [x.flip(1) for x in trials],
    "channels twice": lambda trials: [torch.cat([x, x], 1) for x in trials],
}


def haar(p: int, n: int, seed: int) -> Tensor:
    """Random orthogonal matrices (p, n, n)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(p, n, n, generator=generator, dtype=torch.float64))[0]


@settings(max_examples=25)
@given(case=cases(), change=st.sampled_from(sorted(SAME)))
def test_recording_written_otherwise_is_the_same_system(case, change):
    distances = compare(
        [case.trials, SAME[change](case.trials)], n_starts=4, progress=False, **case.embedding
    ).distances
    assert distances[0, 1] < 1e-7  # rounding, of an offset too


# ---- several systems -------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(drawn=sets(), metric=st.sampled_from(["angular", "euclidean", "spectral"]), data=st.data())
def test_distances_of_any_set_are_those_of_its_pairs(drawn, metric, data):
    """Symmetric, zero on the diagonal, between their bound and pi, and the same in any order and company."""
    systems, embedding = drawn
    budget = {"how": Comparison(n_starts=4).override(metric=metric), "progress": False}
    found = compare(systems, **embedding, **budget)
    k, D = len(systems), found.distances
    assert D.shape == (k, k)
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(D.diagonal(), 0)
    assert ((D >= 0) & (math.pi >= D)).all()
    assert not (found.lower_bounds > D + 1e-9).any()  # NaN where there is none
    order = data.draw(st.permutations(range(k)))
    named = list(systems.items())
    turned = compare(dict(named[i] for i in order), **embedding, **budget).distances
    # 1e-9: a batch of another size sums in another order
    np.testing.assert_allclose(turned, D[np.ix_(order, order)], rtol=0, atol=1e-9)
    ready = compare(found.operators, **budget).distances
    np.testing.assert_allclose(ready, D, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 4, 7, 10])
def test_a_point_halfway_is_halfway(n):
    """Triangles without room: B is the middle of the shortest arc from A to C, in coordinates of its own.

    The angle is the sphere's metric modulo isometries, so d(A, B) + d(B, C) = d(A, C). Less says that d(A, C) missed
    its optimum, more that one of the others did.
    """
    generator = torch.Generator().manual_seed(n)
    A, C = torch.randn(2, 50, n, n, generator=generator, dtype=torch.float64)
    A[25:], C[25:] = (
        haar(25, n, seed) + 0.1 * X[25:] for seed, X in ((1, A), (2, C))
    )  # like operators of slow systems
    A, C = (X / X.norm(dim=(-1, -2), keepdim=True) for X in (A, C))
    whole = align(A, C)
    middle, turn = A + whole.transform @ C @ whole.transform.mT, haar(50, n, seed=3)
    middle = turn @ middle @ turn.mT
    first, second = align(torch.cat([A, middle]), torch.cat([middle, C])).distance.split(50)
    slack = first + second - whole.distance
    assert slack.min() >= -1e-6
    # 32 starts missed 1 of 1800 in dimensions 3 to 10
    assert (slack <= 1e-6).sum() >= 49


@pytest.mark.parametrize(("n_delays", "n_channels"), [(1, 5), (4, 5), (2, 10)])
def test_invertible_map_of_channels_is_seen_only_below_full_rank(n_delays, n_channels):
    """With all n_delays * n_channels directions kept, whitening takes any map out; a cut keeps what varies most."""
    rng = np.random.default_rng(n_channels)
    x = torch.from_numpy(rng.standard_normal((6, 80, n_channels)).cumsum(1) * np.linspace(1, 3, n_channels))
    pair, full = [x, x @ torch.from_numpy(rng.standard_normal((n_channels, n_channels)))], n_delays * n_channels
    whole, cut = (
        compare(pair, n_delays=n_delays, rank=rank, ridge=0, progress=False).distances[0, 1]
        for rank in (full, full - 2)
    )
    assert whole < 1e-6  # rounding times the condition of the map, 10 to 100
    assert cut > 1e-3


def test_time_has_a_direction():
    """What falls to a fixed point rises from it backwards."""
    flow = lorenz(20, 150, rho=14.0, seed=0)
    settings: dict[str, Any] = {"n_delays": 4, "rank": 3, "n_starts": 8, "progress": False}
    floor = compare([flow[::2], flow[1::2]], **settings).distances[0, 1]
    assert compare([flow], [flow.flip(1)], **settings).distances[0, 0] > 5 * floor  # 13 here


# ---- results ---------------------------------------------------------------------------------------------------------

SYSTEMS = {name: lorenz(4, 60, rho=rho, seed=int(rho)) for name, rho in {"a": 10.0, "b": 14.0, "c": 28.0}.items()}
DISTANCES = abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
SMALL: dict[str, Any] = {"n_delays": 2, "rank": 3, "n_starts": 2, "progress": False}
CALLS: dict[str, Callable[[], Any]] = {
    "fit_operator": lambda: fit_operator(SYSTEMS["a"], n_delays=2, rank=3),
    "align": lambda: align(np.eye(2), np.ones((2, 2)), n_starts=2),
    "compare": lambda: compare(SYSTEMS, **SMALL),
    "compare by window": lambda: compare(SYSTEMS, windows=[(0, 30), (30, 60)], **SMALL),
    "choose_embedding": lambda: choose_embedding(SYSTEMS, n_delays=2, rank=(3, 4), progress=False),
    "noise_floor": lambda: noise_floor(SYSTEMS, **SMALL),
    "explain": lambda: explain(compare(SYSTEMS, **SMALL), "a", "b", dt=10.0),
    "auroc_interval": lambda: auroc_interval(1 - np.eye(6), list("aabbcc"), n_resamples=100),
    "permanova": lambda: permanova(1 - np.eye(6), list("aaabbb"), n_permutations=99),
    "mantel": lambda: mantel(DISTANCES, DISTANCES**2),
}


@pytest.mark.filterwarnings("ignore:.*(good for comparing|order of the distances|no cell is):UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_results_survive_copying_and_pickling_and_show_themselves_in_few_lines(call):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    result = CALLS[call]()
    assert torch.equal(torch.get_rng_state(), torch_state)  # no hidden draw
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    text = repr(result)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert repr(twin) == text
    assert len(text) < 3000
