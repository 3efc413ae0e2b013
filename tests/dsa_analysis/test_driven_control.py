"""The control of driven systems: its equations, and that the subspace estimator finds what they have in common."""

import re

import pytest
import torch

from dsa_analysis import DataError, compare, silhouette
from dsa_analysis.controls import DrivenMatrices, DrivenParameters, record_driven

SMALL = DrivenParameters(n_dims=4, n_draws=2, n_times=50)


def test_seed_repeats_and_another_seed_does_not():
    first, again, other = (record_driven(SMALL, **given) for given in (
        {"seed": 3}, {"generator": torch.Generator().manual_seed(3)}, {"seed": 4}))  # fmt: skip
    assert list(first.systems) == list(first.inputs) == list(again.systems)
    for name, x in first.systems.items():
        assert torch.equal(x, again.systems[name])
        assert torch.equal(first.inputs[name], again.inputs[name])
        assert not torch.equal(x, other.systems[name])


def test_systems_are_all_pairs_of_dynamics_and_effects():
    control = record_driven(SMALL, seed=0)
    assert control.states == ("A1",) * 4 + ("A2",) * 4
    assert control.drives == ("B1", "B1", "B2", "B2") * 2
    assert list(control.systems)[:3] == ["A1 B1 draw 0", "A1 B1 draw 1", "A1 B2 draw 0"]
    for x, u in zip(control.systems.values(), control.inputs.values(), strict=True):
        assert (x.shape, u.shape, x.dtype, u.dtype) == ((1, 50, 2), (1, 50, 1), torch.float64, torch.float64)
    radii = torch.linalg.eigvals(control.matrices.A).abs().amax(-1)
    torch.testing.assert_close(radii, torch.tensor([0.92, 0.82]).double())


@pytest.mark.parametrize(("n_seen", "linear"), [(4, True), (3, False)])
def test_seen_dimensions_follow_their_equation(n_seen, linear):
    """Dimensions that are seen have no tanh: with all of them seen, the system is linear."""
    parameters = DrivenParameters(
        n_dims=4, n_seen=n_seen, n_draws=1, n_times=40, noise=0.0, nonlinearity=0.5, radii=(0.6,)
    )
    control = record_driven(parameters, seed=0)
    A, B, seen = control.matrices
    for k, (x, u) in enumerate(zip(control.systems.values(), control.inputs.values(), strict=True)):
        missed = x[0, 1:] - x[0, :-1] @ A[0][seen][:, seen].T - u[0, :-1] @ B[k][seen].T
        assert (float(missed.abs().max()) < 1e-12) is linear
        assert not x[0, 0].any()


def test_given_matrices_are_used_with_the_inputs_of_the_seed():
    drawn = record_driven(SMALL, seed=0)
    again = record_driven(SMALL, matrices=drawn.matrices, seed=0)
    other = record_driven(SMALL, matrices=drawn.matrices._replace(B=2 * drawn.matrices.B), seed=0)
    for name, x in drawn.systems.items():
        assert torch.equal(x, again.systems[name])
        assert torch.equal(drawn.inputs[name], other.inputs[name])
        assert not torch.equal(x, other.systems[name])


@pytest.mark.filterwarnings("ignore:.*cut at rank:UserWarning")
@pytest.mark.parametrize("seed", [0, 3])
def test_subspaces_find_which_systems_share_their_dynamics(seed):
    control = record_driven(DrivenParameters(n_dims=4, n_draws=2, n_times=1000), seed=seed)
    how = {"n_delays": 6, "rank": 4, "progress": False}
    found = compare(control.systems, inputs=control.inputs, estimator="subspace", metric="state", **how)
    without = compare(control.systems, metric="angular", **how)
    assert silhouette(found, control.states) > 0.9
    assert silhouette(without, control.states) < 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_seen": 5}, "n_seen = 5 is more than n_dims = 4"),
        ({"radii": (0.9, -1.0)}, "radii[1] = -1.0 is not a positive number"),
        ({"gains": (0.0,)}, "gains[0] = 0.0 is not a positive number"),
        ({"noise": -1}, "noise = -1 is not a number of at least 0"),
        ({"n_draws": 0}, "n_draws = 0 is not a whole number of at least 1"),
        ({"radii": (1e3,), "n_times": 500}, "a system diverged: radii = (1000.0,) are too large"),
    ],
)
def test_impossible_controls_are_refused(changes, message):
    with pytest.raises(DataError, match=re.escape(message)):
        record_driven(DrivenParameters(**{"n_dims": 4, "n_seen": 2} | changes), seed=0)


def test_matrices_that_do_not_belong_together_are_refused():
    A, B, seen = record_driven(SMALL, seed=0).matrices
    for wrong in (
        DrivenMatrices(A, B[:, :3], seen),
        DrivenMatrices(A, B, seen + 3),
        DrivenMatrices(A[..., :3], B, seen),
    ):
        with pytest.raises(DataError, match=r"do not belong together; \(a, n, n\) and \(b, n, m\) are needed"):
            record_driven(SMALL, matrices=wrong, seed=0)
