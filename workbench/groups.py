"""Groups of trained networks, compared by what they do on one rule: does similarity of dynamics follow learning?

    study = GroupStudy(settings).complete()   # trains and compares, or reads what it did before
    study.to_reference                        # how far each network is from those that learnt the composed rule
    study.scores                              # what these distances go along with, by each measure
    verdicts(study)                           # the claims, in numbers

The *master* is the composed rule, and the networks that learnt nothing else, from scratch, are the *reference*. A
measure of config.yaml says what of a network's activity on the master rule is compared (which states, whole or piece by
piece, with the inputs modelled or not, on the same trials for all networks or on trials of each network's own) and by
which metric. The truth that no measure sees are the Jacobians of the networks at their fixed points.

Tables are kept under results/groups and read where neither settings, networks nor the code of the method changed.
"""

import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from joblib import Parallel, delayed
from scipy.stats import bootstrap, spearmanr
from torch import Tensor
from tqdm import tqdm

from dsa_analysis import (
    DataError,
    Similarity,
    compare,
    fit_driven_operator,
    fit_operator,
    match_modes,
    noise_floor,
    permanova,
    spearman_interval,
)
from dsa_analysis.baselines import BASELINES
from multitask import Activity, LeakyRNN, TrainedGroups, find_fixed_points, perturbed, record_activity, train_groups
from workbench.engine import engine
from workbench.notebooks import fingerprint, read_results, write_results
from workbench.settings import Measure, Settings

REFERENCE, BEFORE, FROZEN, FREE = FAMILIES = (
    "reference",
    "never on the master rule",
    "recurrent weights frozen",
    "all weights free",
)
Pieces = dict[str, Any]  # of one network: piece -> its trials, or the operator fitted to them
Systems = dict[tuple[Hashable, int], Pieces]  # by group or step, and number of the network in it


class GroupStudy:
    """The groups of the settings, and all that is asked of them with one seed.

    Parameters
    ----------
    settings : Settings
    seed : int, optional
        In place of that of the settings.
    progress : bool
        Show bars on stderr.
    """

    def __init__(self, settings: Settings, seed: int | None = None, progress: bool = True) -> None:
        self.settings, self.progress = settings, progress
        self.seed = settings.seed if seed is None else seed
        self.ours, self.how = settings.groups, settings.groups.comparison
        self.concerns: Counter[str] = Counter()  # what was warned of while something was computed, and how often

    @cached_property
    def trained(self) -> TrainedGroups:
        """All groups, trained now unless they were."""
        return train_groups(
            self.ours.groups,
            self.ours.network,
            self.ours.training,
            folder=self.settings.results / "runs",
            n_networks=self.ours.n_networks,
            seed=self.seed,
            device=self.settings.device,
            progress=self.progress,
        )

    @cached_property
    def reference(self) -> str:
        """The first group whose networks learnt the master rule and nothing else, with all their weights."""
        return next(
            name
            for name, group in self.ours.groups.items()
            if group.after is None and tuple(group.rules) == (self.ours.master,) and not group.frozen
        )

    def family(self, group: str) -> str:
        """What a group has to do with the master rule, one of FAMILIES."""
        if group == self.reference:
            return REFERENCE
        if self.ours.master not in self.trained.learnt(group):
            return BEFORE
        return FROZEN if "recurrent" in self.ours.groups[group].frozen else FREE

    def shared(self, group: str) -> int:
        """How many parts of the master rule its networks ever learnt by themselves."""
        return len(set(self.trained.learnt(group)) & set(self.ours.parts))

    # ---- tables ----

    def complete(self) -> "GroupStudy":
        """Train and compare all there is, where the engine of the settings says; what was done is read."""
        with engine(self.settings.engine):
            for name in self.how.shown:
                self.among(name)
                if self.has_floor(name):
                    self.floors(name)
            _ = self.scores, self.over_learning, self.within_runs, self.jacobian_modes, self.jacobian_pairs
        return self

    @cached_property
    def to_reference(self) -> pd.DataFrame:
        """How far every network is from the reference, by every measure, and what it knows.

        ``measure``, ``group``, ``network`` in the group, ``family``, ``shared``, ``performance`` on the master rule,
        ``distance`` (mean over the networks of the reference; of one of these to the others).
        """
        return self._kept("to_reference", self._to_reference)

    def _to_reference(self) -> pd.DataFrame:
        known = self.trained.performance(self.ours.master, n_trials=self.ours.n_test_trials)
        known = known[["group", "network", "performance"]].assign(
            family=[self.family(name) for name in known["group"]], shared=[self.shared(name) for name in known["group"]]
        )

        def of_measure(name: str) -> pd.DataFrame:
            measure = self.how.measures[name]
            distances = self._distances_to_reference(measure, self.systems(measure, self._networks()))
            return known.assign(measure=name, distance=distances)

        return pd.concat(self._each(of_measure, self.how.measures, "measures"), ignore_index=True)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """What the distances to the reference go along with, by each measure: Spearman's rho with a 95 % interval.

        ``rho``, ``low``, ``high``, ``n`` networks, by measure and question: "performance", of all networks but the
        reference, and "parts shared" within each family in which that differs.
        """
        table = self.to_reference[self.to_reference["family"] != REFERENCE]
        return self._kept("scores", lambda: self._scores(table)).set_index(["measure", "question"])

    def _scores(self, table: pd.DataFrame) -> pd.DataFrame:
        def of_measure(name: str) -> pd.DataFrame:
            own, rows = table[table["measure"] == name], []
            asked = {"performance": (own, "performance")}
            asked |= {f"parts shared, {family}": (own[own["family"] == family], "shared") for family in FAMILIES[1:]}
            for question, (of, column) in asked.items():
                if of[column].nunique() > 1:
                    distance, known = of["distance"].to_numpy(), of[column].to_numpy()
                    rows.append((name, question, *spearman_interval(distance, known, seed=self.seed)))
            return pd.DataFrame(rows, columns=["measure", "question", "rho", "low", "high", "n"])

        return pd.concat(self._each(of_measure, self.how.measures, "scores"), ignore_index=True)

    def among(self, name: str) -> Similarity:
        """All networks with each other by one measure; labels are "group k"."""
        path, about = self.settings.results / "groups" / f"among_{name}_seed_{self.seed}.nc", self._about(name)
        if path.is_file():
            with suppress(DataError):  # damaged: computed again
                similarity = Similarity.load(path)
                if similarity.settings["about"] == about:
                    self.concerns.update(similarity.settings["concerns"])
                    return similarity
        measure, before = self.how.measures[name], self.concerns.copy()
        with self.listening():
            systems = self.systems(measure, self._networks())
            similarity = self.compared(measure, {f"{group} {k}": pieces for (group, k), pieces in systems.items()})
        kept = {"about": about, "concerns": self.concerns - before}
        similarity = replace(similarity, settings=similarity.settings | kept)
        similarity.save(path)
        return similarity

    def has_floor(self, name: str) -> bool:
        """Whether halves of a network's own trials can be compared by a measure: not if it wants matched trials, nor if
        its operators are fitted with inputs."""
        return self.how.measures[name].metric not in BASELINES and not self.how.measures[name].inputs

    def floors(self, name: str) -> pd.DataFrame:
        """Distance of halves of each network's own trials: ``group``, ``network``, ``floor``."""
        return self._kept(f"floors_{name}", lambda: self._floors(self.how.measures[name]))

    def _floors(self, measure: Measure) -> pd.DataFrame:
        systems = self.systems(measure, self._networks())
        with self.listening():
            floors = [
                noise_floor(
                    {f"{group} {k}": own[piece] for (group, k), own in systems.items()},
                    **measure.options,
                    metric=measure.metric,
                    n_splits=self.how.n_splits,
                    seed=self.seed,
                    device=self.settings.device,
                    progress=False,
                )
                for piece in next(iter(systems.values()))
            ]
        groups, networks = zip(*systems, strict=True)
        return pd.DataFrame({"group": groups, "network": networks, "floor": np.mean(floors, 0)})

    @cached_property
    def over_learning(self) -> pd.DataFrame:
        """How far the networks of the groups that are followed are from the reference, checkpoint by checkpoint.

        ``measure`` (those shown), ``group``, ``network``, ``step``, ``progress`` (share of the steps), ``performance``
        on the master rule, ``distance``.
        """
        return self._kept("over_learning", self._over_learning)

    def _over_learning(self) -> pd.DataFrame:
        followed = {group: self.ours.groups[group] for group in self.how.learning}
        known = replace(self.trained, groups=followed).performance(
            self.ours.master, n_trials=self.ours.n_test_trials, over_learning=True
        )

        def of_group(group: str) -> pd.DataFrame:
            stages = {step: self.trained.network(group, step) for step in self.trained.steps(group)}
            own = known.loc[known["group"] == group, ["group", "network", "step", "performance"]]
            own = own.assign(progress=own["step"] / max(stages))
            return pd.concat(
                own.assign(
                    measure=name,
                    distance=self._distances_to_reference(measure, self.systems(measure, stages)),
                )
                for name, measure in self._shown()
            )

        return pd.concat(self._each(of_group, followed, "groups over learning"), ignore_index=True)

    @cached_property
    def within_runs(self) -> pd.DataFrame:
        """How far checkpoints of the reference's networks are from each other: ``measure``, ``network``, ``step``,
        ``other_step``, ``distance``."""
        return self._kept("within_runs", self._within_runs)

    def _within_runs(self) -> pd.DataFrame:
        stages = {step: self.trained.network(self.reference, step) for step in self.trained.steps(self.reference)}
        tables = []
        for name, measure in self._shown():
            systems = self.systems(measure, stages)
            for k in range(stages[0].n_networks):
                own = {str(step): pieces for (step, network), pieces in systems.items() if network == k}
                with self.listening():
                    distances = pd.DataFrame(self.compared(measure, own).distances, list(stages), list(stages))
                long = distances.rename_axis("step").melt(
                    var_name="other_step", value_name="distance", ignore_index=False
                )
                tables.append(long.reset_index().assign(measure=name, network=k))
        return pd.concat(tables, ignore_index=True)

    # ---- the truth ----

    @cached_property
    def jacobian_modes(self) -> pd.DataFrame:
        """The slowest modes of operators fitted to activity near fixed points, beside those of the Jacobians there:
        ``group``, ``network``, ``point``, and as `match_modes`, a row for each mode.

        The networks run without noise under the input of a period of the master rule, pushed a little off each fixed
        point (see `perturbed`).
        """
        return self._kept("jacobian_modes", lambda: self._jacobians[0])

    @cached_property
    def jacobian_pairs(self) -> pd.DataFrame:
        """All pairs of these points: ``operators``, the distance of the fitted operators, and ``jacobians``, that of
        the Jacobians on as many slow modes."""
        return self._kept("jacobian_pairs", lambda: self._jacobians[1])

    @cached_property
    def _jacobians(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        found = [
            near
            for part in self._each(self._near_fixed_points, self.how.jacobians.groups, "fixed points")
            for near in part
        ]
        if len(found) < 2:
            self.concerns["fewer than two fixed points with enough activity around them"] += 1
            columns = ["expected_time_constant", "time_constant", "expected_frequency", "frequency", "error", "gap"]
            return (
                pd.DataFrame(columns=[*columns, "group", "network", "point"], dtype=float),
                pd.DataFrame(columns=["system_a", "system_b", "operators", "jacobians"], dtype=float),
            )
        modes, operators, truths = zip(*found, strict=True)
        names = [f"point {k}" for k in range(len(found))]
        fitted, true = (
            compare(dict(zip(names, side, strict=True)), seed=self.seed, progress=False).to_dataframe()
            for side in (operators, truths)
        )
        pairs = fitted[["system_a", "system_b"]].assign(operators=fitted["distance"], jacobians=true["distance"])
        return pd.concat([own.assign(point=name) for own, name in zip(modes, names, strict=True)]), pairs

    def _near_fixed_points(self, group: str) -> list[tuple[pd.DataFrame, Tensor, Tensor]]:
        """Modes, operator and slow Jacobian of fixed points of a group's networks."""
        how, network = self.how.jacobians, self.trained.network(group)
        activity = record_activity(network, self.ours.master)
        start, stop = activity.periods[how.period]
        inputs, states = activity.batch.inputs[0, (start + stop) // 2], activity.hidden[:, :, stop - 1]
        starts = states[:, np.linspace(0, states.shape[1] - 1, how.n_starts).astype(int)]
        points = find_fixed_points(network, inputs, starts, max_steps=how.max_steps)
        points = points.subset(points.fixed & points.separable(how.rank))
        first = [
            k for n in range(network.n_networks) for k in (points.network == n).nonzero()[: how.n_points, 0].tolist()
        ]
        points = points.subset(torch.tensor(first, dtype=torch.long))
        if not first:
            warnings.warn(f"group {group!r}: no fixed points in {how.period}", stacklevel=2)
            return []
        courses = perturbed(network, points, inputs, n_trials=how.n_trials, n_times=how.n_times, seed=self.seed)
        found = []
        for k, (course, truth) in enumerate(
            zip(courses[:, :, how.discard :], points.slow_jacobian(how.rank), strict=True)
        ):
            try:
                operator = fit_operator(course, n_delays=1, rank=how.rank)
            except DataError:
                warnings.warn(
                    f"group {group!r}: a fixed point that all returns to before rank {how.rank} shows", stacklevel=2
                )
                continue
            modes = match_modes(
                operator.eigenvalues, points.eigenvalues[k], dt=self.ours.network.dt, n_modes=how.n_modes
            )
            of_point = modes.assign(group=group, network=int(points.network[k]))
            found.append((of_point, operator.matrix, truth))
        return found

    # ---- what is compared ----

    def systems(self, measure: Measure, stages: Mapping[Any, LeakyRNN]) -> Systems:
        """What a measure sees of the networks of ensembles, on trials of the master rule; ragged where periods are."""
        found: Systems = {}
        for stage, ensemble in stages.items():
            if measure.trials == "matched":
                own = self._pieces(measure, ensemble, np.random.SeedSequence([self.seed, 0]))
            else:  # each network draws its own, which depend on nothing but its name
                own = [
                    self._pieces(measure, ensemble.subset([k]), _entropy(self.seed, stage, k))[0]
                    for k in range(ensemble.n_networks)
                ]
            found |= {(stage, k): pieces for k, pieces in enumerate(own)}
        return found

    def _pieces(self, measure: Measure, ensemble: LeakyRNN, seeds: np.random.SeedSequence) -> list[Pieces]:
        states: list[dict[str, list[Tensor]]] = [defaultdict(list) for _ in range(ensemble.n_networks)]
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        for seed in seeds.generate_state(self.how.n_batches).tolist():
            activity = record_activity(
                ensemble,
                self.ours.master,
                self.how.n_trials,
                mode="random",
                noise=self.ours.training.sigma_x if self.how.noise else 0.0,
                private_noise=self.how.noise,
                seed=seed,
            )
            hidden = activity.hidden if measure.states == "hidden" else _on_readout(activity.hidden, ensemble)
            for piece, (start, stop), trials in _cut(activity, measure.by, self.how.periods):
                inputs[piece] += list(activity.batch.inputs[trials, start:stop])
                for own, of_network in zip(states, hidden, strict=True):
                    own[piece] += list(of_network[trials, start:stop])
        return [{piece: _system(own[piece], inputs[piece], measure) for piece in own if own[piece]} for own in states]

    def compared(
        self, measure: Measure, systems: Mapping[str, Pieces], others: Mapping[str, Pieces] | None = None
    ) -> Similarity:
        """Distances by one measure, the mean over pieces."""
        sides = [side for side in (systems, others) if side is not None]
        each = [
            compare(
                *({name: pieces[piece] for name, pieces in side.items()} for side in sides),
                metric=measure.metric,
                **measure.options,
                seed=self.seed,
                device=self.settings.device,
                progress=False,
            )
            for piece in next(iter(systems.values()))
        ]
        distances, bounds = (np.mean([getattr(one, name) for one in each], 0) for name in ("distances", "lower_bounds"))
        return replace(each[0], distances=distances, lower_bounds=bounds)

    def _distances_to_reference(self, measure: Measure, systems: Systems) -> np.ndarray:
        """Mean distance of each system from the networks of the reference, (k,); of one of these, from the others."""
        reference = self.systems(measure, {self.reference: self.trained.network(self.reference)})
        named = ({str(label): pieces for label, pieces in side.items()} for side in (systems, reference))
        distances = self.compared(measure, *named).distances
        itself = np.array([[one == other for other in reference] for one in systems])
        return np.ma.masked_array(distances, itself).mean(1).data

    def _networks(self) -> dict[str, LeakyRNN]:
        return {group: self.trained.network(group) for group in self.ours.groups}

    # ---- housekeeping ----

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect warnings as `concerns`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self._keep(str(warning.message) for warning in caught)

    def _shown(self) -> list[tuple[str, Measure]]:
        return [(name, self.how.measures[name]) for name in self.how.shown]

    def _each(self, work: Callable[[str], Any], items: Iterable[str], what: str) -> list[Any]:
        """Results of all items, by as many workers as there are."""
        _ = self.trained  # before workers get their copies of this
        tasks = [delayed(_heard)(work, item) for item in items]
        done = tqdm(Parallel(return_as="generator")(tasks), desc=what, total=len(tasks), disable=not self.progress)
        results, concerns = zip(*done, strict=True)
        self._keep(said for some in concerns for said in some)
        return list(results)

    def _keep(self, concerns: Iterable[str]) -> None:
        """Count what was said, but for what is usual here: silent relu units, and periods shorter than many units."""
        usual = "carry nothing", "time on the last axis"
        kinds = (
            re.sub(r"^(\d+ of \d+ systems|system) .*?: ", "", said)
            for said in concerns
            if not any(words in said for words in usual)
        )
        self.concerns.update(re.split(r" \(|; |: ", kind)[0] for kind in kinds)

    def _about(self, name: str) -> str:
        """A digest of all that a table follows from: settings but for the claims, networks, and this code."""
        ours = {key: value for key, value in vars(self.ours).items() if key not in ("comparison", "n_seeds")}
        how = {key: value for key, value in vars(self.how).items() if key != "claims"}
        runs = sorted({run.folder.name for run in self.trained.runs.values()})
        return fingerprint(name, ours, how, self.seed, self.settings.device, runs, Path(__file__).read_text())

    def _kept(self, name: str, find: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table, read with what was warned of if nothing changed that it follows from, else found and written."""
        path = self.settings.results / "groups" / f"{name}_seed_{self.seed}.nc"
        if (stored := read_results(path, self._about(name))) is not None:
            self.concerns.update(json.loads(stored.attrs["concerns"]))
        else:
            before = self.concerns.copy()
            stored = xr.Dataset.from_dataframe(find().rename_axis("row"))
            stored.attrs["concerns"] = json.dumps(self.concerns - before)
            write_results(stored, path, self._about(name))
        return stored.to_dataframe().reset_index(drop=True)


def _heard(work: Callable[[str], Any], item: str) -> tuple[Any, list[str]]:
    """The result, and what was warned of meanwhile: warnings of a worker go nowhere."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work(item)
    return result, [str(warning.message) for warning in caught]


def _entropy(seed: int, stage: Hashable, network: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, 1, network, *str(stage).encode()])


def _cut(activity: Activity, by: str, periods: Sequence[str]) -> list[tuple[str, tuple[int, int], Tensor]]:
    """Pieces of a batch of trials: name, first sample and the one after the last, and which trials."""
    periods, response = periods or tuple(activity.periods), activity.batch.response
    spans = [activity.periods[name] for name in periods]
    whole, trials = (spans[0][0], spans[-1][1]), torch.arange(len(response))
    if by == "period":
        return [(name, span, trials) for name, span in zip(periods, spans, strict=True)]
    if by == "response":
        quarter = (response.remainder(2 * torch.pi) / (torch.pi / 2)).floor().clamp_max(3)
        answered = [(f"response {q}", whole, trials[quarter == q]) for q in range(4)]
        return [*answered, ("no response", whole, trials[response.isnan()])]
    return [("whole", whole, trials)]


def _on_readout(hidden: Tensor, ensemble: LeakyRNN) -> Tensor:
    """States (E, B, T, N) in orthonormal coordinates of the subspace that the outputs are read from."""
    weights = ensemble.weights["w_out"].to(hidden)  # (E, N, n_outputs)
    return torch.einsum("ebtn,enk->ebtk", hidden, torch.linalg.qr(weights)[0])


def _system(trials: list[Tensor], inputs: list[Tensor], measure: Measure) -> Any:
    if not measure.inputs:
        return trials
    return fit_driven_operator(  # a state has seen the input of its own time: what moves it on is the next one
        [states[:-1] for states in trials],
        [drive[1:] for drive in inputs],
        **{key: measure.options[key] for key in ("n_delays", "rank", "delay_interval", "ridge", "center")},
    )


# ---- what the tables say ---------------------------------------------------------------------------------------------


def groups_of(similarity: Similarity) -> list[str]:
    """Groups of the systems of `GroupStudy.among`."""
    return [label.rsplit(" ", 1)[0] for label in similarity.labels]


def between_groups(similarity: Similarity) -> pd.DataFrame:
    """Mean distance of the networks of each two groups, a network with itself left out, from `GroupStudy.among`."""
    groups = pd.Index(groups_of(similarity))
    distances = pd.DataFrame(similarity.distances, groups, groups).mask(np.eye(len(groups), dtype=bool))
    sums, counts = (
        frame.T.groupby(level=0, sort=False).sum().T.groupby(level=0, sort=False).sum()
        for frame in (distances.fillna(0), distances.notna())
    )
    return sums / counts


def of_runs(learning: pd.DataFrame) -> pd.Series:
    """Spearman's rho of distance to the reference with performance over the checkpoints of each run, from
    `GroupStudy.over_learning`, by measure, group and network; runs in which performance stood still are left out."""
    by_run = learning.groupby(["measure", "group", "network"], sort=False)
    rho = by_run[["distance", "performance"]].apply(
        lambda run: (
            spearmanr(run["distance"], run["performance"]).statistic if run["performance"].nunique() > 1 else np.nan
        )
    )
    return rho.dropna()


def difference(table: pd.DataFrame, measure: str, other: str, seed: int = 0) -> tuple[float, float, float]:
    """Rho with performance by one measure less that by another, over the same networks, with a 95 % interval."""
    known = table[table["family"] != REFERENCE]
    a, b = (known.loc[known["measure"] == name, "distance"].to_numpy() for name in (measure, other))
    performance = known.loc[known["measure"] == measure, "performance"].to_numpy()

    def statistic(a: np.ndarray, b: np.ndarray, performance: np.ndarray) -> float:
        return spearmanr(a, performance).statistic - spearmanr(b, performance).statistic

    found = bootstrap(
        (a, b, performance), statistic, paired=True, vectorized=False, n_resamples=999, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return statistic(a, b, performance), float(found.low), float(found.high)


def verdicts(study: GroupStudy) -> pd.DataFrame:
    """The claims about networks, in numbers: ``what``, ``seen``, ``claim``, ``met`` ("met", "NOT MET", or "")."""
    parts = (_about_performance, _about_parts, _about_learning, _about_groups, _about_trials, _about_truth)
    rows = [row for part in parts for row in part(study)]
    found = pd.DataFrame(rows, columns=["what", "seen", "claim", "met"])
    return found.assign(met=found["met"].map({True: "met", False: "NOT MET", None: ""}))


Verdict = tuple[str, str, str, bool | None]


def _about_performance(study: GroupStudy) -> Iterator[Verdict]:
    (method, *others), claimed = study.how.shown, study.how.claims.performance
    rho = study.scores.loc[method, "performance"]
    what = f"{method}: distance to the reference with performance, rho"
    yield what, _with_interval(rho), f"<= {claimed:g}", rho["rho"] <= claimed
    for other in others:
        own, low, high = difference(study.to_reference, method, other, study.seed)
        beside = study.scores.loc[(other, "performance"), "rho"]
        what = f"{method} tracks it no worse than {other} ({beside:.2f}), difference of rho"
        yield what, f"{own:+.2f} [{low:+.2f}, {high:+.2f}]", "<= 0", own <= 0


def _about_parts(study: GroupStudy) -> Iterator[Verdict]:
    for name in (BEFORE, FROZEN, FREE):
        for measure in study.how.shown:
            if (measure, key := f"parts shared, {name}") in study.scores.index:
                rho = study.scores.loc[measure, key]
                is_claim = measure == study.how.shown[0] and name != FREE
                yield (
                    f"{measure}: distance with {key}, rho",
                    _with_interval(rho),
                    "interval < 0" if is_claim else "",
                    rho["high"] < 0 if is_claim else None,
                )


def _about_learning(study: GroupStudy) -> Iterator[Verdict]:
    runs, claimed = of_runs(study.over_learning), study.how.claims.learning
    for measure in study.how.shown:
        low, median, high = runs.loc[measure].quantile([0.25, 0.5, 0.75])
        is_claim = measure == study.how.shown[0]
        yield (
            f"{measure}: distance with performance over a run, median rho of {len(runs.loc[measure])}",
            f"{median:.2f} (quarters {low:.2f}, {high:.2f})",
            f"<= {claimed:g}" if is_claim else "",
            median <= claimed if is_claim else None,
        )


def _about_groups(study: GroupStudy) -> Iterator[Verdict]:
    for measure in study.how.shown:
        similarity = study.among(measure)
        with study.listening():
            test = permanova(
                similarity, groups_of(similarity), n_permutations=study.how.n_permutations, seed=study.seed
            )
        claimed = study.how.claims.p_value
        yield (
            f"{measure}: groups differ, PERMANOVA",
            f"R2 = {test.r_squared:.2f}, p = {test.p:.2g}",
            f"p <= {claimed:g}",
            test.p <= claimed,
        )


def _about_trials(study: GroupStudy) -> Iterator[Verdict]:
    rho, claimed = study.scores["rho"], study.how.claims.unmatched
    for name, measure in study.how.measures.items():
        if measure.trials == "unmatched":
            change = abs(rho[name, "performance"] - rho[study.how.shown[0], "performance"])
            yield f"{name}: change of the first rho", f"{change:.2f}", f"<= {claimed:g}", change <= claimed


def _about_truth(study: GroupStudy) -> Iterator[Verdict]:
    claims, pairs = study.how.claims, study.jacobian_pairs
    if not len(pairs):
        return
    error = study.jacobian_modes.groupby("point")["error"].first().abs()
    yield (
        f"slowest time constant near {len(error)} fixed points, relative error, median",
        f"{error.median():.3f} (90 % below {error.quantile(0.9):.3f})",
        f"<= {claims.mode_error:g}",
        error.median() <= claims.mode_error,
    )
    rho = spearmanr(pairs["operators"], pairs["jacobians"]).statistic
    what = f"distances of operators with those of Jacobians, rho of {len(pairs)} pairs"
    yield what, f"{rho:.2f}", f">= {claims.jacobians:g}", rho >= claims.jacobians


def _with_interval(rho: pd.Series) -> str:
    return f"{rho['rho']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}], n = {rho['n']:.0f}"
