"""Operators with inputs: what every driven linear system x(t + 1) = A x(t) + B w(t) offers to comparisons.

`driven` and `subspace` fit them to data; `joint` aligns them.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import spectra
from dsa_analysis.data import DataError, check_count
from dsa_analysis.display import Card, Shown
from dsa_analysis.embedding import EmbeddingParameters
from dsa_analysis.inputs import Excitation, match


@dataclass(frozen=True, repr=False)
class DrivenOperator(Shown):
    """A linear map with inputs, x(t + 1) = A x(t) + B w(t), such as ``DrivenOperator(A, B)`` from elsewhere.

    Attributes
    ----------
    matrix : (n, n) float64
        A: the system's own dynamics.
    input_matrix : (n, k) float64
        B: the effect of each of k inputs.
    """

    matrix: Tensor = field(repr=False)
    input_matrix: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        for name, columns in (("matrix", "n, n"), ("input_matrix", "n, k")):
            try:
                value = torch.as_tensor(getattr(self, name)).detach()
            except (TypeError, ValueError, RuntimeError):
                raise DataError(f"{name} of a DrivenOperator is no matrix of numbers") from None
            if value.ndim != 2 or not value.numel() or value.is_complex():
                raise DataError(
                    f"{name} of a DrivenOperator has shape {tuple(value.shape)}; real numbers ({columns}) are needed"
                )
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"{name} of a DrivenOperator holds NaN or infinity")
            object.__setattr__(self, name, value.double())
        n, rows = self.matrix.shape, len(self.input_matrix)
        if n[0] != n[1] or n[0] != rows:
            raise DataError(
                f"a DrivenOperator has a matrix (n, n) and an input_matrix (n, k), and came with {tuple(n)} and "
                f"{tuple(self.input_matrix.shape)}"
            )

    def __repr__(self) -> str:
        return f"<{self._title}, {self.input_matrix.shape[1]} columns of inputs>"

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} of rank {self.rank}"

    def _card(self) -> Card:
        rows = {"inputs": f"{self.input_matrix.shape[1]} columns of B", "data": self.lacking}
        return Card(self._title, rows, ".eigenvalues, .time_constants(dt), compare({name: operator}, metric='joint')")

    @property
    def rank(self) -> int:
        return len(self.matrix)

    @property
    def drive(self) -> Tensor:
        """(n, k) B in the scale in which it is compared; see docs/driven.md."""
        return self.input_matrix

    @property
    def lacking(self) -> str:
        """Why the data do not determine B; empty if they do, or if it is not known."""
        return ""

    @property
    def kind(self) -> str:
        """What has to be the same in all systems of a comparison: how the coordinates of states were chosen."""
        return ""

    @property
    def eigenvalues(self) -> Tensor:
        """(n,) complex, of A, in the order of `Operator.eigenvalues`."""
        return spectra.eigenvalues(self.matrix)

    def time_constants(self, dt: float) -> Tensor:
        """(n,) time constants of the modes in the unit of the sampling interval ``dt``."""
        return spectra.time_constants(self.eigenvalues, dt)

    def frequencies(self, dt: float) -> Tensor:
        """(n,) frequencies of the modes in cycles per unit of the sampling interval ``dt``."""
        return spectra.frequencies(self.eigenvalues, dt)


@dataclass(frozen=True, repr=False)
class FittedDriven(DrivenOperator):
    """A driven operator that was fitted to trials and their inputs.

    Samples are y(t) = C x(t) + D w(t) + c, and x(t + 1) = A x(t) + B w(t) + b.

    Attributes
    ----------
    offset : (rank,)
        b; zeros if ``center`` is false.
    readout, feedthrough, level : (n_channels, rank), (n_channels, k), (n_channels,)
        C, D and c.
    parameters : EmbeddingParameters
        A window holds the samples from which a state is computed.
    n_inputs : int
    excitation : Excitation
        Whether the inputs vary enough to tell their effects apart.
    """

    offset: Tensor = field(repr=False)
    readout: Tensor = field(repr=False)
    feedthrough: Tensor = field(repr=False)
    level: Tensor = field(repr=False)
    parameters: EmbeddingParameters
    n_inputs: int
    excitation: Excitation

    @property
    def lacking(self) -> str:
        return self.excitation.lacking

    @property
    def kind(self) -> str:
        p = self.parameters
        return f"estimator = {p.estimator!r}" + f", windows of {p.window} samples" * (p.estimator != "subspace")

    def predict(self, trials: Any, inputs: Any, horizon: int = 1) -> Tensor | list[Tensor]:
        """Predict samples ``horizon`` steps ahead of each window, given the inputs up to there.

        Parameters
        ----------
        trials, inputs : as in `fit_driven_operator`
            With the channels and inputs that the operator was fitted to.
        horizon : int >= 1, in samples

        Returns
        -------
        Tensor, (n_trials, n_times - past, n_channels), or a list of (n_times_i - past, n_channels) if you gave a list
            Row t predicts sample t + past, with past = (n_delays - 1) * delay_interval + horizon.

        Raises
        ------
        DataError
            Another number of channels or inputs, trials that are too short, or trials and inputs that do not match.
        """
        check_count("horizon", horizon)
        window = self.parameters.window
        states, drives = match(trials, inputs, "system", self.matrix.device)
        for k, (x, u) in enumerate(zip(states, drives, strict=True)):
            for what, found, fitted in (
                ("channels", x.shape[1], len(self.level)),
                ("inputs", u.shape[1], self.n_inputs),
            ):
                if found != fitted:
                    raise DataError(f"trial {k} has {found} {what}; the operator was fitted to {fitted}")
            if len(x) < window + horizon:
                raise DataError(
                    f"trial {k} has {len(x)} samples; to predict {horizon} ahead, {window + horizon} are needed"
                )
        predictions = [self._predict(x.double(), u.double(), horizon) for x, u in zip(states, drives, strict=True)]
        return predictions if isinstance(trials, (list, tuple)) else torch.stack(predictions)

    def _predict(self, x: Tensor, u: Tensor, horizon: int) -> Tensor:
        """Predictions for one checked trial."""
        raise NotImplementedError
