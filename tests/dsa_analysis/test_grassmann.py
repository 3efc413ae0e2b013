"""Transport between the modes of operators ("sgot"): a metric, that of POT, and the same at every sampling rate.

tests/reference/pot_sgot.json holds distances that POT 0.9.7 computed once; it says how.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dsa_analysis import (
    METRICS,
    Comparison,
    DataError,
    DrivenOperator,
    Similarity,
    SpectralGrassmann,
    choose_embedding,
    compare,
    lorenz,
    noise_floor,
    stability,
    trial_replicates,
)
from dsa_analysis.grassmann import as_rates, modes

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "pot_sgot.json").read_text())
FLOW = torch.tensor([[-0.3, 2.0, 0.0], [-1.5, -0.3, 0.5], [0.0, 0.0, -1.0]], dtype=torch.float64)
SYSTEMS = {
    name: lorenz(6, 80, rho=rho, discard=100, seed=k)
    for k, (name, rho) in enumerate({"a": 28.0, "b": 14.0, "c": 160.0, "d": 35.0}.items())
}
quiet = pytest.mark.filterwarnings("ignore:.*(of .* systems|good for comparing|order of the dist|halves of one)")


def matrix(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noisy_flow(flow: Tensor, n_trials: int, n_times: int, dt: float, seed: int) -> Tensor:
    """x' = flow x + white noise, exact at every sampling interval, from its stationary distribution."""
    from scipy.linalg import expm, solve_continuous_lyapunov

    step = torch.tensor(expm(flow.numpy() * dt))
    spread = torch.tensor(solve_continuous_lyapunov(flow.numpy(), -np.eye(len(flow))))
    kick, start = (torch.linalg.cholesky(x) for x in (spread - step @ spread @ step.T, spread))
    noise = torch.randn(
        n_times, n_trials, len(flow), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    states = [noise[0] @ start.T]
    for own in noise[1:]:
        states.append(states[-1] @ step.T + own @ kick.T)
    return torch.stack(states, 1)


@pytest.mark.parametrize("pair", REFERENCE["pairs"], ids=lambda pair: f"n={len(pair['first'])}")
def test_distances_are_those_of_pot(pair):
    first, second = (modes(matrix(pair[side]), side)[None] for side in ("first", "second"))
    for number in pair["numbers"]:
        found = float(SpectralGrassmann(**number["options"]).distances(first, second)[0])
        # rounding of nearly equal modes, where POT subtracts cos^2 from 1, to the power of 1 / (p r)
        assert found == pytest.approx(number["distance"], abs=1e-8)
        if not number["options"]:
            given = {side: matrix(pair[side]) for side in ("first", "second")}
            assert compare(given, metric="sgot", progress=False).distances[0, 1] == found


@pytest.mark.parametrize("pair", REFERENCE["rates"], ids=lambda pair: f"n={len(pair['first'])}")
def test_distances_of_rates_are_those_of_pot(pair):
    given = {side: matrix(pair[side]) for side in ("first", "second")}
    intervals = dict(zip(given, pair["dt"], strict=True))
    found = compare(given, metric=SpectralGrassmann(per=1), dt=intervals, progress=False)
    assert found.distances[0, 1] == pytest.approx(pair["distance"], abs=1e-8)
    assert found.metric == "sgot(per=1)"


@pytest.mark.parametrize("options", [{}, {"eta": 0.2, "p": 1, "r": 1}, {"q": 2, "p": 2, "r": 1}])
def test_distance_is_a_metric(options):
    generator = torch.Generator().manual_seed(1)
    operators = torch.randn(600, 5, 5, dtype=torch.float64, generator=generator) / 5**0.5
    operators[200:400] = operators[:200] + 0.05 * operators[200:400]  # near ones, whose inequality may be tight
    a, b, c = torch.stack([modes(x, "x") for x in operators]).split(200)
    metric = SpectralGrassmann(**options)
    ab, bc, ac = (metric.distances(x, y) for x, y in ((a, b), (b, c), (a, c)))
    torch.testing.assert_close(metric.distances(b, a), ab, rtol=1e-9, atol=0)  # sums in another order
    assert (metric.distances(a, a) == 0).all()
    assert (ab > 0).all()
    assert (ac <= ab + bc + 1e-12).all()
    assert (ab <= ac + bc + 1e-12).all()
    assert (bc <= ab + ac + 1e-12).all()


def test_distance_does_not_change_in_rotated_channels_or_with_the_phase_of_eigenvectors():
    A, B = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    Q = torch.linalg.qr(A + B)[0]
    pair, turned = ({"a": f @ A @ f.T, "b": f @ B @ f.T} for f in (torch.eye(4, dtype=torch.float64), Q))
    found, again = (compare(x, metric="sgot", progress=False).distances[0, 1] for x in (pair, turned))
    assert again == pytest.approx(found, abs=1e-10)
    mixed = compare({"a": A, "b": Q @ A @ Q.T}, progress=False, metric="sgot").distances[0, 1]
    assert mixed > 0.5  # one system in other coordinates: eigenspaces are not aligned
    one, other = modes(A, "a"), modes(B, "b")
    phase = torch.polar(torch.ones(4).double(), torch.arange(4).double())[:, None]
    spun = torch.cat([one[:, :1], phase * one[:, 1:5], phase.conj() * one[:, 5:]], 1)
    metric = METRICS["sgot"]
    torch.testing.assert_close(metric.distances(spun[None], other[None]), metric.distances(one[None], other[None]))
    assert float(metric.distances(spun[None], one[None])[0]) < 1e-3  # the fourth root of rounding, 1e-16


def test_modes_of_fitted_operators_are_in_the_space_of_their_windows():
    """A linear system is fitted exactly, and its modes are those of the map itself."""
    step = torch.linalg.matrix_exp(0.1 * FLOW)
    mix = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    states = [torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))]
    for _ in range(30):
        states.append(states[-1] @ step.T)
    seen = torch.stack(states, 1) @ mix.T
    outside = mix @ step @ torch.linalg.pinv(mix)  # the same map of the four channels
    found = compare({"seen": seen}, {"again": 3 * seen}, n_delays=1, rank=3, center=False, ridge=0, metric="sgot")
    assert found.distances[0, 0] < 5e-3  # the fourth root of the errors of a fit, 1e-10
    rows = modes(outside, "outside")
    rows = rows[rows[:, 0].abs() > 1e-6][None]  # without the direction that the system never takes
    fitted = found.operators["seen"]
    lift = fitted.basis * fitted.singular_values, fitted.basis / fitted.singular_values
    assert float(METRICS["sgot"].distances(modes(fitted.matrix, "seen", lift)[None], rows)[0]) < 5e-3


def test_unequal_sampling_rates_of_one_flow_are_within_the_floor():
    other = FLOW.clone()
    other[0, 1] = 1.2
    intervals = {"fast": 0.05, "slow": 0.07, "other": 0.05}
    how = Comparison(n_delays=1, rank=3, metric="sgot", dt=intervals)
    same, floors, different = [], [], []
    for seed in range(0, 30, 3):
        systems = {
            "fast": noisy_flow(FLOW, 20, 200, 0.05, seed),
            "slow": noisy_flow(FLOW, 20, 143, 0.07, seed + 1),  # as long in time
            "other": noisy_flow(other, 20, 200, 0.05, seed + 2),
        }
        found = compare(systems, how=how, progress=False)
        floor = found.pair_floors(noise_floor(systems, how, progress=False))
        same.append(found.distances[0, 1])
        floors.append(floor[0, 1])
        different.append(min(found.distances[0, 2], found.distances[1, 2]))
    assert np.mean(same) < np.mean(floors)
    assert np.mean(np.array(same) < 1.15 * np.array(floors)) > 0.8
    assert np.mean(np.array(different) > np.array(floors)) > 0.9


def test_rates_of_the_same_flow_agree_at_every_step():
    G = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) - 2 * torch.eye(4)
    steps = (0.1, 0.3)
    one, other = (as_rates(modes(torch.linalg.matrix_exp(t * G), "x"), t, 0.3, "x")[None] for t in steps)
    assert float(METRICS["sgot"].distances(one, other)[0]) < 1e-3  # the fourth root of rounding
    values = torch.linalg.eigvals(G) * 0.3
    gaps = (one[0, :, :1] - values).abs().amin(1)
    assert gaps.max() < 1e-12


def test_operators_without_separate_modes_are_refused_and_nearly_so_up_to_a_tolerance():
    jordan = torch.tensor([[0.9, 1.0], [0.0, 0.9]], dtype=torch.float64)
    message = (
        r"system 'b': eigenvalue .* is so near another that their eigenvectors are not determined .*lower the rank"
    )
    for bad in (jordan, torch.eye(2, dtype=torch.float64), jordan + torch.tensor([[0, 0], [1e-14, 0]])):
        with pytest.raises(DataError, match=message):
            compare({"a": torch.diag(matrix([0.9, 0.5])), "b": bad}, metric="sgot", progress=False)
    near = jordan + torch.tensor([[0, 0], [1e-8, 0]])
    found = compare({"a": near, "b": near + 1e-15}, metric="sgot", progress=False)
    assert found.distances[0, 1] < 0.1  # fourth root of the tolerated error of eigenvectors, 1e-4


def test_bad_input_is_refused():
    A = torch.diag(matrix([0.9, 0.5]))
    for options, message in (
        ({"eta": 1.2}, r"eta = 1.2 is not a number from 0 to 1"),
        ({"p": 0.5}, r"p = 0.5 is not a number from 1 to 100"),
        ({"q": 0}, r"q = 0 is not a number above 0, up to 2"),
        ({"q": 3}, r"q = 3.0 is not a number above 0, up to 2"),
        ({"r": "two"}, r"r = 'two' is not a number from 1 to 100"),
        ({"per": 0}, r"per = 0 is not a time above 0"),
    ):
        with pytest.raises(DataError, match=message):
            SpectralGrassmann(**options)
    with pytest.raises(DataError, match="system 'b': an eigenvalue is 0, which has no rate"):
        compare({"a": A, "b": torch.diag(matrix([0.9, 0]))}, metric=SpectralGrassmann(per=1), progress=False)
    with pytest.raises(DataError, match="operators with inputs have coordinates of their own; use metric = 'state'"):
        compare({"a": DrivenOperator(A, A), "b": DrivenOperator(A, A)}, metric="sgot", progress=False)
    narrow = {"a": SYSTEMS["a"], "b": SYSTEMS["b"][..., :2]}
    with pytest.raises(
        DataError, match=r"windows have 6 \(system 'a'\), 4 \(system 'b'\) entries; systems need the same"
    ):
        compare(narrow, n_delays=2, rank=2, metric="sgot", progress=False)
    unequal = {"a": 0.01, "b": 0.02}
    with pytest.raises(DataError, match=r"window = 0.1 holds different numbers .* give n_delays = 1"):
        Comparison(window=0.1, rank=2, metric="sgot", dt=unequal)
    with pytest.raises(DataError, match=r"n_delays = 3 is a different time in each system; give n_delays = 1"):
        Comparison(n_delays=3, rank=2, metric="sgot", dt=unequal)
    with pytest.raises(
        DataError, match="has no effect with metric = 'sgot', which compares eigenvalues, which need no"
    ):
        Comparison(n_starts=4, metric="sgot")


@quiet
def test_it_works_wherever_a_metric_does(tmp_path):
    how = Comparison(n_delays=2, rank=3, metric="sgot")
    found = compare(SYSTEMS, how=how, store=tmp_path / "pairs", progress=False)
    other = compare(SYSTEMS, how=how, metric=SpectralGrassmann(eta=0.9), store=tmp_path / "pairs", progress=False)
    assert not np.allclose(found.distances, other.distances)  # stored pairs are those of these parameters
    stored = Similarity.load(found.save(tmp_path / "s.nc"))
    again = compare(stored.operators, how=stored.comparison, progress=False)
    np.testing.assert_allclose(again.distances, found.distances, atol=1e-12)
    assert "eigenvalues and eigenspaces" in repr(found)
    named = Similarity.load(other.save(tmp_path / "other.nc"))
    assert named.metric == "sgot(eta=0.9)"
    assert noise_floor(SYSTEMS, how, progress=False).between(0, 2).all()
    windows = compare(SYSTEMS, how=how, windows=[(0, 40), (40, 80)], progress=False)
    replicates = trial_replicates(SYSTEMS, windows, n_replicates=2, progress=False)
    assert (replicates[:, 0, 1] > 0).all()
    assert len(stability(SYSTEMS, how, over={"rank": [2, 3]}, n_resamples=0, progress=False).cells) == 2
    choice = choose_embedding(SYSTEMS, metric="sgot", n_delays=[1, 2], rank=[3], progress=False)
    assert choice.table["auroc"].notna().any()
