"""Metrics as values: those of the package, and one of a user's own, which touches no file of the package."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor

from dsa_analysis import METRICS, DataError, Metric, Similarity, align, choose_embedding, compare, lorenz, noise_floor
from dsa_analysis.metrics import as_metric
from dsa_analysis.plotting import plot_distances

pytestmark = pytest.mark.filterwarnings("ignore:.*(of .* systems|good for comparing|order of the dist|halves of one)")
SYSTEMS = {
    name: lorenz(6, 80, rho=rho, discard=100, seed=k)
    for k, (name, rho) in enumerate({"a": 28.0, "b": 14.0, "c": 160.0}.items())
}
OPERATORS = torch.randn(2, 5, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Radius:
    """Difference of spectral radii."""

    name, unit, needs, bounded = "radius", "modulus", "eigenvalues", False

    def distances(self, first: Tensor, second: Tensor, **options: object) -> Tensor:
        return (first.abs().amax(-1) - second.abs().amax(-1)).abs()


class Size(Metric):
    """Difference of Frobenius norms, of which it is its own bound."""

    name, unit, needs, bounded = "size", "norm", "operators", True
    options = ("seed",)

    def distances(self, first: Tensor, second: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        assert seed == 0
        difference = (first.norm(dim=(-2, -1)) - second.norm(dim=(-2, -1))).abs()
        return difference, difference


class Means:
    """Distance of mean states, of the trials themselves; they need not match."""

    name, unit, needs, bounded, matched, title = "means", "state", "trials", False, False, "mean states"

    def distances(self, first: list[list[Tensor]], second: list[list[Tensor]], **options: object) -> Tensor:
        a, b = (torch.stack([torch.cat(trials).mean(0) for trials in side]) for side in (first, second))
        return (a - b).norm(dim=-1)


@pytest.mark.parametrize("metric", [Radius(), Size(), Means()])
def test_own_metric_is_compared_stored_shown_and_read(metric, tmp_path):
    embedding = {} if metric.needs == "trials" else {"n_delays": 3, "rank": 4}
    found = compare(SYSTEMS, metric=metric, **embedding, store=tmp_path / "pairs", progress=False)
    assert (found.metric, found.unit) == (metric.name, metric.unit)
    again = compare(SYSTEMS, metric=metric, **embedding, store=tmp_path / "pairs", progress=False)
    np.testing.assert_array_equal(found.distances, again.distances)
    assert np.isfinite(found.lower_bounds[0, 1]) == metric.bounded
    if metric.needs != "trials":
        a, b = (found.operators[name].matrix for name in "ab")
        given = (
            (a[None], b[None]) if metric.needs == "operators" else tuple(torch.linalg.eigvals(x)[None] for x in (a, b))
        )
        expected = metric.distances(*given, seed=0)
        assert found.distances[0, 1] == pytest.approx(
            float((expected[0] if metric.bounded else expected)[0]), abs=1e-12
        )
    assert list(found.to_dataframe().distance) == [found.distances[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]

    stored = Similarity.load(found.save(tmp_path / "s.nc"))
    assert (stored.metric, stored.unit) == (metric.name, metric.unit)
    np.testing.assert_array_equal(stored.distances, found.distances)
    axes = plt.figure().subplots()
    plot_distances(stored, axes)
    assert axes.get_title() == getattr(metric, "title", metric.name)
    assert f"distance ({metric.unit})" in [a.get_ylabel() for a in axes.figure.axes]
    plt.close("all")
    with pytest.raises(
        DataError, match=f"metric '{metric.name}' was read from a file, which holds its results but not"
    ):
        compare(SYSTEMS, how=stored.comparison, progress=False)
    assert noise_floor(SYSTEMS, metric=metric, **embedding, progress=False).min() >= 0


def test_own_metric_judges_the_choice_of_an_embedding():
    choice = choose_embedding(SYSTEMS, metric=Radius(), n_delays=3, rank=[3, 4], progress=False)
    assert choice.how.metric.name == "radius"
    assert choice.table["auroc"].notna().any()


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs == "operators"])
def test_metrics_of_operators_are_at_zero_for_conjugates_and_symmetric(name):
    A, B = OPERATORS
    Q = torch.linalg.qr(OPERATORS[0])[0]
    assert METRICS[name].distances(A, Q @ A @ Q.mT, n_starts=16).distance.max() < 1e-6
    forth, back = METRICS[name].distances(A, B, n_starts=16), METRICS[name].distances(B, A, n_starts=16)
    torch.testing.assert_close(forth.distance, back.distance, rtol=0, atol=1e-9)  # solved as one pair
    assert (forth.lower_bound <= forth.distance + 1e-12).all()


@pytest.mark.parametrize("remove_trace", [False, True])
def test_frobenius_is_the_smallest_difference_of_the_operators_themselves(remove_trace):
    A, B = OPERATORS * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    found = METRICS["frobenius"].distances(A, B, n_starts=16, remove_trace=remove_trace)
    C = align(A, B, n_starts=16, remove_trace=remove_trace).transform
    if remove_trace:
        A, B = (x - x.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(6) for x in (A, B))
    direct = (A - C @ B @ C.mT).norm(dim=(-2, -1)) / 6**0.5
    torch.testing.assert_close(found.distance, direct, rtol=1e-9, atol=0)
    # no random transform comes nearer than the distance, and none below the bound
    Q = torch.linalg.qr(torch.randn(500, 5, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    tried = (A - Q @ B @ Q.mT).norm(dim=(-2, -1)).amin(0) / 6**0.5
    assert (found.distance <= tried).all()
    assert (found.lower_bound <= tried).all()


def test_frobenius_sees_size_and_the_angle_does_not():
    A = OPERATORS[0]
    assert METRICS["angular"].distances(A, 2 * A, n_starts=8).distance.max() < 1e-6
    expected = A.norm(dim=(-2, -1)) / 6**0.5  # |A - 2 A|
    torch.testing.assert_close(
        METRICS["frobenius"].distances(A, 2 * A, n_starts=8).distance, expected, rtol=1e-6, atol=0
    )


def test_metric_without_what_is_needed_is_refused_by_name():
    class Half:
        name, unit = "half", "m"

    class Bad(Radius):
        needs = "operator"

    class Unbounded(Size):
        def distances(self, first: Tensor, second: Tensor, **options: object) -> Tensor:  # type: ignore[override]
            return first.sum((-1, -2)).abs()

    class Wide(Radius):
        def distances(self, first: Tensor, second: Tensor, **options: object) -> Tensor:
            return first.abs()

    for metric, message in (
        (
            Half(),
            "metric 'half' has no needs, no bounded, no distances; a metric needs name, unit, needs, bounded, dist",
        ),
        (Radius, "metric = Radius is a class; pass an object of it, Radius()"),
        (
            Bad(),
            "metric 'radius': needs = 'operator' is none of 'operators', 'driven', 'eigenvalues', 'modes', 'trials'",
        ),
        (7, "metric 'int' has no name"),
        ("angel", "metric = 'angel' is none of .*; did you mean 'angular'"),
    ):
        with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
            as_metric(metric)
    for metric, message in (
        (Unbounded(), r"metric 'size' is bounded, so distances must return \(distances, lower bounds\)"),
        (Wide(), r"metric 'radius' returned shape \(3, 4\) for 3 pairs, not \(P,\)"),
    ):
        with pytest.raises(DataError, match=message):
            compare(SYSTEMS, metric=metric, n_delays=3, rank=4, progress=False)
