"""Trains a stored run again and says where, and by how much, the two part.

On one machine with the same versions they are equal bit for bit. Elsewhere sums are rounded in another order: weights
differ in their last digits at first, and these differences grow, as in any chaotic system.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from multitask.display import Card, Shown, bars_go_to
from multitask.network import LeakyRNN, NetworkParameters, make_network
from multitask.storage import RunFolder, open_for_training, provenance, tensors_sha256
from multitask.training.loop import Trainer
from multitask.training.parameters import TrainingParameters
from multitask.training.runs import Run, groups_of, load_run
from multitask.trials import MultitaskError, check_whole, checked_device

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Verification(Shown):
    """A stored run beside the same run, trained here.

    Attributes
    ----------
    folder : str
    steps : DataFrame
        One row for each stored checkpoint that was reached: ``step``, ``weights`` (largest absolute difference),
        ``relative`` (norm of the difference over norm of the weights, largest over networks and weights).
    log : DataFrame
        One row for each evaluation that was reached: ``step``, ``loss`` and ``performance``, the largest absolute
        differences over rules and networks, and ``mean_performance``, the difference of the means over both.
    elsewhere : dict of name -> (stored, here)
        Versions, threads and properties of the machine that differ.
    """

    folder: str
    steps: "pd.DataFrame"
    log: "pd.DataFrame"
    elsewhere: dict[str, tuple[Any, Any]]

    @property
    def parts_at(self) -> int | None:
        """First checkpoint with other weights, None if the weights are the same bit for bit."""
        apart = self.steps[self.steps["weights"] > 0]
        return None if apart.empty else int(apart["step"].iloc[0])

    @property
    def same(self) -> bool:
        """Whether all weights, losses and performances are the same."""
        return self.parts_at is None and not (self.log[["loss", "performance"]] > 0).any(axis=None)

    def _card(self) -> Card:
        last, tested = self.steps.iloc[-1], self.log.iloc[-1]
        rows = {"steps": f"{int(last['step'])}, {len(self.steps)} checkpoints and {len(self.log)} evaluations"}
        if self.same:
            rows["weights"] = "the same, bit for bit"
        else:
            rows["weights"] = (
                "the same at all checkpoints" if self.parts_at is None else f"the first to differ: step {self.parts_at}"
            )
            rows["at the end"] = f"differences of weights up to {last['weights']:.2g} ({last['relative']:.2g} relative)"
            rows["performance"] = (
                f"differs by up to {tested['performance']:.3f} a rule and network, {tested['mean_performance']:+.3f} "
                f"in the mean, at step {int(tested['step'])}"
            )
        for name, (stored, here) in self.elsewhere.items():
            rows[name] = f"{stored} when it was stored, {here} here"
        return Card(f"Run in {self.folder}, trained again", rows, ".steps and .log (tables), .elsewhere, .same")


def verify_run(
    run_folder: str | os.PathLike[str],
    *,
    n_steps: int | None = None,
    start: LeakyRNN | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Verification:
    """Train a stored run again, in a temporary folder, and compare weights and performance with the stored ones.

    Parameters
    ----------
    run_folder : path
        Folder of the run, which is only read.
    n_steps : int >= 1, optional
        Train the first steps only. By default all that are stored.
    start : LeakyRNN, optional
        The networks that the run started from, if it did not start from random ones.
    device : torch.device or str, optional
        CPU by default.
    progress : bool

    Returns
    -------
    Verification

    Raises
    ------
    MultitaskError
        If the folder contains no run, its tasks cannot be imported, or ``start`` is missing or not that of the run.
    """
    stored = load_run(run_folder)
    last = stored.checkpoints[-1]
    last = last if n_steps is None else min(last, check_whole("n_steps", n_steps, 1))
    trainer = _trainer(stored, start, device)
    with TemporaryDirectory() as place, open_for_training(place) as folder:
        rows = list(_steps(trainer, stored, last, folder, progress))
        log = folder.log(trainer.step)
    import pandas as pd

    elsewhere = dict(_differing(stored.settings, provenance()))
    return Verification(str(run_folder), pd.DataFrame(rows), _log_apart(stored.log, log), elsewhere)


def _steps(trainer: Trainer, stored: Run, last: int, folder: RunFolder, show: bool) -> Iterator[dict[str, float]]:
    """Train up to a step; a row at each stored checkpoint."""
    with tqdm(total=last, desc="verifying", unit="step", file=bars_go_to(), disable=not show) as bar:
        trainer.record(folder)
        while True:
            if trainer.step in stored.checkpoints:
                yield {"step": trainer.step, **_apart(stored.load(trainer.step), trainer.network)}
            if trainer.step >= last or trainer.finished:
                return
            trainer.follow()
            trainer.record(folder)
            bar.update()


def _trainer(stored: Run, start: LeakyRNN | None, device: torch.device | str | None) -> Trainer:
    """A trainer at step 0 of the run."""
    settings, given = stored.settings, None if start is None else tensors_sha256(start.weights)
    if settings["start"] != given:
        raise MultitaskError(
            f"run folder {stored.folder} "
            + (
                "started from random networks: leave out start"
                if settings["start"] is None
                else "started from other trained networks: pass these as start"
            )
        )
    groups, tasks = groups_of(settings["rules"])
    known = {**settings["training"], "frozen": tuple(settings["training"]["frozen"])}
    if not isinstance(known["checkpoint_steps"], str):
        known["checkpoint_steps"] = tuple(known["checkpoint_steps"])
    made = make_network(
        NetworkParameters(**settings["network"]), settings["n_networks"], settings["seed"], checked_device(device)
    )
    weights = made.weights if start is None else start.weights
    ensemble = made.with_weights({name: w.detach().to(made.device, copy=True) for name, w in weights.items()})
    return Trainer(groups, tasks, TrainingParameters(**known), ensemble, settings["seed"])


def _apart(stored: LeakyRNN, here: LeakyRNN) -> dict[str, float]:
    """How far weights are apart, in double precision."""
    largest, relative = 0.0, 0.0
    for name, weight in stored.weights.items():
        theirs = weight.detach().double().cpu().flatten(1)
        difference = here.weights[name].detach().double().cpu().flatten(1) - theirs
        largest = max(largest, float(difference.abs().max()))
        norms = theirs.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)  # weights that are all 0
        relative = max(relative, float((difference.norm(dim=1) / norms).max()))
    return {"weights": largest, "relative": relative}


def _log_apart(stored: "pd.DataFrame", here: "pd.DataFrame") -> "pd.DataFrame":
    """Largest differences of each evaluation of both."""
    keys, values = ["step", "rule", "network"], ["loss", "performance"]
    both = here.set_index(keys)[values] - stored.set_index(keys)[values].reindex(here.set_index(keys).index)
    by_step = both.groupby("step")
    table = by_step.agg(lambda column: column.abs().max())
    return table.assign(mean_performance=by_step["performance"].mean()).reset_index()


def _differing(stored: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Names and values of what is recorded on both sides, apart from the date, and differs."""
    for key, ours in here.items():
        theirs = stored.get(key)
        if isinstance(ours, Mapping):
            yield from _differing(theirs or {}, ours)
        elif key not in ("created", "format") and theirs != ours:
            yield key, ("not recorded" if theirs is None else theirs, ours)
