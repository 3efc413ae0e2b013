"""The dynamics of a trained network that no measure has to estimate: its Jacobians at fixed points.

The networks run without noise under the constant input of one period of the master rule. They are pushed a little off
each fixed point (see `multitask.perturbed`), an operator is fitted to the way back, and it is compared with the
Jacobian at that point.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsa_analysis import DataError, compare, fit_operator, match_modes
from multitask import FixedPoints, LeakyRNN, find_fixed_points, perturbed, record_activity
from workbench.settings import JacobianTruth

if TYPE_CHECKING:
    import pandas as pd


class NearPoint(NamedTuple):
    """One fixed point of one network."""

    modes: "pd.DataFrame"  # from `match_modes`, with ``group`` and ``network``
    operator: Tensor  # (rank, rank), fitted to activity near the point
    jacobian: Tensor  # (rank, rank), the Jacobian on its slowest modes


def near_fixed_points(network: LeakyRNN, group: str, rule: str, how: JacobianTruth, seed: int) -> list[NearPoint]:
    """Fit an operator near fixed points of each network of a group.

    Parameters
    ----------
    network : LeakyRNN
        An ensemble.
    group : str
        Its name, for the table.
    rule : str
        The rule whose input is held constant.
    how : JacobianTruth
    seed : int >= 0
        Seed of the pushes.

    Returns
    -------
    list of NearPoint
        At most ``how.n_points`` for each network, the slowest points first.

    Warns
    -----
    UserWarning
        A group without fixed points, or a point around which activity has fewer than ``how.rank`` dimensions.
    """
    points, inputs = _fixed_points(network, rule, how)
    if not len(points.network):
        warnings.warn(f"no fixed points in {how.period} (group {group!r})", stacklevel=2)
        return []
    courses = perturbed(network, points, inputs, n_trials=how.n_trials, n_times=how.n_times, seed=seed)
    truths, found = points.slow_jacobian(how.rank), []
    for k, course in enumerate(courses[:, :, how.discard :]):
        try:
            operator = fit_operator(course, n_delays=1, rank=how.rank)
        except DataError:
            warnings.warn(
                f"activity near a fixed point has fewer than {how.rank} dimensions (group {group!r})", stacklevel=2
            )
            continue
        modes = match_modes(
            operator.eigenvalues, points.eigenvalues[k], dt=network.parameters.dt, n_modes=how.n_modes
        ).assign(group=group, network=int(points.network[k]))
        found.append(NearPoint(modes, operator.matrix, truths[k]))
    return found


def _fixed_points(network: LeakyRNN, rule: str, how: JacobianTruth) -> tuple[FixedPoints, Tensor]:
    """The slowest fixed points of each network, and the input that is held constant."""
    activity = record_activity(network, rule, how.n_starts)  # of a rule, its grid
    start, stop = activity.periods[how.period]
    inputs = activity.batch.inputs[0, (start + stop) // 2]
    states = network.states(activity.batch.inputs)[:, :, stop - 1]
    starts = states[:, np.linspace(0, states.shape[1] - 1, how.n_starts).astype(int)]
    points = find_fixed_points(network, inputs, starts, max_steps=how.max_steps)
    points = points.subset(points.fixed & points.separable(how.rank))
    of_networks = [(points.network == n).nonzero()[:, 0] for n in range(network.n_networks)]
    return points.subset(torch.cat([own[: how.n_points] for own in of_networks])), inputs


def jacobian_tables(found: Sequence[NearPoint], seed: int) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Modes at all points, and distances between all pairs of points.

    Returns
    -------
    modes : DataFrame
        As `match_modes`, a row for each mode, with ``group``, ``network`` and ``point``.
    pairs : DataFrame
        ``system_a``, ``system_b``, ``operators`` (distance of the fitted operators, rad) and ``jacobians`` (distance of
        the Jacobians). Both tables are empty if there are fewer than two points.

    Warns
    -----
    UserWarning
        Fewer than two points.
    """
    import pandas as pd

    if len(found) < 2:
        warnings.warn("fewer than two fixed points with enough activity around them", stacklevel=2)
        columns = ["expected_time_constant", "time_constant", "expected_frequency", "frequency", "error", "gap"]
        return (
            pd.DataFrame(columns=[*columns, "group", "network", "point"], dtype=float),
            pd.DataFrame(columns=["system_a", "system_b", "operators", "jacobians"], dtype=float),
        )
    modes, operators, truths = zip(*found, strict=True)
    names = [f"point {k}" for k in range(len(found))]
    fitted, true = (
        compare(dict(zip(names, side, strict=True)), seed=seed, progress=False).to_dataframe()
        for side in (operators, truths)
    )
    pairs = fitted[["system_a", "system_b"]].assign(operators=fitted["distance"], jacobians=true["distance"])
    return pd.concat([own.assign(point=name) for own, name in zip(modes, names, strict=True)]), pairs
