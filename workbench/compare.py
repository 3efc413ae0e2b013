"""Files of recordings -> a report: which of them compute alike, and how far that can be trusted.

Needs no config.yaml; every choice comes from the command line and stands in the report. Into one folder go report.html,
a page that can be sent as it is; distances.csv, one row a pair; and similarity.nc, which `Similarity.load` reads. What
can be checked without reading a file is checked first.
"""

import argparse
import shlex
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

import dsa_analysis as dsa
from dsa_analysis import Comparison, DataError
from dsa_analysis.comparison import AUTO
from dsa_analysis.data import as_device, check_choice
from dsa_analysis.metrics import as_metric, is_matched
from dsa_analysis.recordings.load import labels_of
from dsa_analysis.recordings.readers import refuse_unreadable
from workbench import robust
from workbench.report.findings import Findings, said_once
from workbench.report.page import as_csv
from workbench.settings import ConfigError, replacing
from workbench.terminal import Stages, called, complain

if TYPE_CHECKING:
    pass

FILES = ("report.html", "distances.csv", "similarity.nc")
LOADING = ("variable", "axes", "sampling_rate", "smooth", "decimate", "zscore", "align_to", "window", "trials", "units")
LOCK = ".lock"
UNFINISHED = "unfinished_pairs"  # folder of pairs that a rerun need not solve again; gone once the report is there
LEAST_REPLICATES = 20  # below which intervals are refused


class Outcome(NamedTuple):
    """The report of a comparison, and what it says in a few lines."""

    page: Path
    said: list[str]


def compare_files(arguments: argparse.Namespace, command: str) -> Outcome:
    """Do what ``compute-alike compare`` was asked. Interrupted and called again, it goes on.

    Raises
    ------
    ConfigError
        A choice that does not fit, or results that are there already.
    DataError
        Files or data that cannot be used.
    """
    folder, started = Path(arguments.output), time.perf_counter()
    present = [name for name in FILES if (folder / name).exists()]
    if present and not arguments.overwrite:
        raise ConfigError(
            f"{folder}: holds {', '.join(present)} already; say --overwrite, or another folder by --output"
        )
    if len(arguments.files) < 2:
        raise ConfigError(f"{arguments.files[0]} alone cannot be compared; give two files or more")
    choices = {
        name.removeprefix("choice_"): value for name, value in vars(arguments).items() if name.startswith("choice_")
    }
    _check(arguments, choices)
    further = (arguments.intervals, arguments.stability is not None, arguments.null is not None)
    stages = Stages(3 + sum(map(bool, further)), arguments.quiet, arguments.verbose)
    with _alone_in(folder):
        return _into(folder, arguments, choices, stages, command, started)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold a lock on it, which ends with the process; another process that comes is told."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK, fallback_to_soft=False).acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another comparison is writing there; wait until it ends, or name another folder by --output"
        ) from None
    except OSError as error:  # found before the work, not after
        raise ConfigError(f"{folder}: no such folder can be made, or locked ({error.strerror})") from None
    with held:
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes it as the lock ends, and not before
                (folder / LOCK).unlink()


def _into(
    folder: Path,
    arguments: argparse.Namespace,
    choices: Mapping[str, Any],
    stages: Stages,
    command: str,
    started: float,
) -> Outcome:
    """Compare, and write the report; the lock on the folder is held."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        findings = _find(arguments, choices, stages)
    findings.concerns.extend(said_once(str(warning.message) for warning in caught))
    for concern in findings.concerns:
        if not arguments.quiet:
            complain(f"warning: {concern}", "warning")

    findings.similarity.save(folder / "similarity.nc")
    with replacing(folder / "distances.csv") as temporary:
        temporary.write_text(as_csv(findings.table), encoding="utf-8")
    with stages.stage("writing the report"):
        page, said = _page(findings, command, started)
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return Outcome(folder / "report.html", said)


def _page(findings: Findings, command: str, started: float) -> tuple[str, list[str]]:
    """The page, and its conclusion in lines of text."""
    from matplotlib import rc_context

    from workbench.report.figures import PLAIN
    from workbench.report.page import render
    from workbench.report.sections import in_lines, sections

    with rc_context(PLAIN):
        shown = sections(findings)
    k = len(findings.similarity.labels)
    page = render("Do they compute alike?", shown, command, time.perf_counter() - started, f"{k} systems")
    return page, in_lines(findings)


def _find(arguments: argparse.Namespace, choices: Mapping[str, Any], stages: Stages) -> Findings:
    metric, device, progress = as_metric(choices.get("metric", "angular")), arguments.device, stages.bars
    with stages.stage(f"reading {len(arguments.files)} files"):
        loaded = _loaded(arguments, matched=is_matched(metric), progress=progress)
    systems: dict[str, Any] = dict(loaded)
    if arguments.operators:
        systems = {name: _as_matrix(name, recording) for name, recording in loaded.items()}
    groups = _groups(list(systems), arguments.files, arguments.group_by)
    how = _comparison(arguments, choices, loaded)
    single = [] if arguments.operators else [name for name, system in systems.items() if len(system.trials) < 2]
    if single and arguments.intervals:
        raise ConfigError(f"--intervals: draws trials again, but {', '.join(single)} have a single one")

    choice, n_pairs = None, len(systems) * (len(systems) - 1) // 2
    with stages.stage(f"comparing {n_pairs} pair{'s' * (n_pairs > 1)}, and halves of systems for the noise floor"):
        if AUTO in (how.n_delays, how.rank, how.horizon):
            choice = dsa.choose_embedding(systems, how, device=device, progress=progress)
            how = choice.applied_to(how)
        store = Path(arguments.output) / UNFINISHED
        similarity = dsa.compare(systems, how=how, store=store, device=device, progress=progress)
        sources = {
            "omit_shorter_than": arguments.omit_shorter_than,
            "recordings": {name: recording.settings for name, recording in loaded.items()},
        }
        similarity = replace(similarity, settings=similarity.settings | sources)
        how, table = similarity.comparison, similarity.to_dataframe()
        floor = None
        if not arguments.operators and not is_matched(metric) and how.windows is None:
            if single:
                warnings.warn(
                    f"no noise floor: {', '.join(single)} have a single trial, which has no two halves", stacklevel=2
                )
            else:
                floor = dsa.noise_floor(systems, how, n_splits=arguments.n_splits, device=device, progress=progress)
                table["noise_floor"] = similarity.pair_floors(floor)[np.triu_indices(len(systems), 1)]

    replicates = None
    if arguments.intervals:
        with stages.stage(f"intervals from {arguments.intervals} draws of the trials"):
            replicates = dsa.trial_replicates(
                systems, similarity, n_replicates=arguments.intervals, seed=how.seed, device=device, progress=progress
            )
        pairs = np.triu_indices(len(systems), 1)
        table["ci_low"], table["ci_high"] = (limit[pairs] for limit in dsa.distance_intervals(similarity, replicates))
    stable, nulls = None, {}
    if arguments.stability is not None:
        with stages.stage("comparing under other choices"):
            stable = robust.stability(
                systems, how, arguments.stability, list(groups.values()), device=device, progress=progress
            )
    if arguments.null is not None:
        with stages.stage(f"{arguments.null_draws} null distances of each pair"):
            nulls = robust.nulls(systems, how, arguments, progress)
        table = robust.against_nulls(table, similarity, floor, nulls)
    explanation = _explained(arguments, similarity, loaded)
    statistics = _statistics(similarity, list(groups.values()), replicates) if groups else {}
    found = Findings(
        systems, groups, similarity, table, floor, choice, statistics, explanation, stability=stable, nulls=nulls
    )
    return replace(found, spectra=_spectra(found)) if found.unclear_cuts else found


def _spectra(findings: Findings) -> dict[str, Any]:
    """All singular values of each system, which show at what other ranks to cut."""
    how = findings.similarity.comparison.embedding
    return {
        name: dsa.singular_spectrum(
            findings.systems[name], n_delays=how(name).n_delays, delay_interval=how(name).delay_interval,
            center=how(name).center, name=name,
        )
        for name in findings.operators
    }  # fmt: skip


def _loaded(arguments: argparse.Namespace, matched: bool, progress: bool) -> dict[str, dsa.Recording]:
    """The files; of operators one matrix each, of recordings the trials that stay."""
    files = _announced(arguments.files, "reading", progress)
    if arguments.operators:
        stated = {"variable": arguments.variable, "axes": "time, channel", "sampling_rate": arguments.sampling_rate}
        return dsa.load_recordings(files, **stated)
    loading = {key: getattr(arguments, key) for key in LOADING} | {"keep_non_finite": arguments.omit_non_finite}
    return dsa.omit_trials(
        dsa.load_recordings(files, **loading),
        non_finite=arguments.omit_non_finite,
        shorter_than=arguments.omit_shorter_than,
        matched=matched,
    )


def _statistics(similarity: dsa.Similarity, groups: list[str], replicates: np.ndarray | None) -> dict[str, Any]:
    """How well groups are told apart."""
    given: dict[str, Any] = {"replicates": replicates, "seed": similarity.comparison.seed}
    return {
        "AUROC, pairs of two groups farther apart than pairs of one": dsa.auroc_interval(similarity, groups, **given),
        "silhouette of the groups": dsa.silhouette_interval(similarity, groups, **given),
        "PERMANOVA, pseudo-F": dsa.permanova(similarity, groups, seed=similarity.comparison.seed),
    }


def _check(arguments: argparse.Namespace, choices: Mapping[str, Any]) -> None:
    """Refuse options that could not be followed, before any file is read."""
    metric = as_metric(choices.get("metric", "angular"))
    names = labels_of(arguments.files)
    for file in arguments.files:
        refuse_unreadable(Path(file).expanduser())
    _groups(names, arguments.files, arguments.group_by)
    for name in arguments.explain or ():
        check_choice("--explain", name, names)
    as_device(arguments.device)
    embedding = [name for name in choices if Comparison.__dataclass_fields__[name].metadata["group"] == "embedding"]
    if metric.needs == "driven" or choices.get("estimator") == "subspace":
        given = f"--metric {metric.name}" if metric.needs == "driven" else "--estimator subspace"
        raise ConfigError(
            f"{given}: needs the inputs of the systems, which files do not hold; use compare(..., inputs=...) in Python"
        )
    if arguments.operators and metric.needs == "trials":
        raise ConfigError(
            f"--metric {metric.name}: compares recordings, but --operators says that files hold operators"
        )
    if arguments.operators and embedding:
        raise ConfigError(
            f"--{embedding[0].replace('_', '-')}: has no effect with --operators, which are fitted already"
        )
    if arguments.operators and arguments.intervals:
        raise ConfigError("--intervals: draws trials again, and --operators have none")
    if arguments.intervals and arguments.intervals < LEAST_REPLICATES:
        raise ConfigError(f"--intervals: {arguments.intervals} is too few; give {LEAST_REPLICATES} or more")
    if arguments.explain:
        if arguments.explain[0] == arguments.explain[1]:
            raise ConfigError(f"--explain: needs two systems, got {arguments.explain[0]} twice")
        if metric.needs != "operators":
            raise ConfigError(f"--explain: metric {metric.name} aligns no operators; use --metric angular")
    robust.check(arguments, metric)
    Comparison().override(**choices)  # refuses values and combinations that cannot be


def _comparison(
    arguments: argparse.Namespace, choices: Mapping[str, Any], loaded: Mapping[str, dsa.Recording]
) -> Comparison:
    """The comparison that the options ask for, with sampling intervals in ms from the files if they say them."""
    metric = as_metric(choices.get("metric", "angular"))
    given = dict(choices)
    if not arguments.operators and metric.needs != "trials":
        given.setdefault("rank", AUTO)
        if "window" not in given:
            given.setdefault("n_delays", AUTO)
    intervals = {name: recording.dt for name, recording in loaded.items()}
    known = {dt for dt in intervals.values() if dt is not None}
    if "dt" not in given and None not in intervals.values() and known:
        timed = {"horizon", "window"} & set(given)
        if len(known) == 1 or timed or metric.needs in ("trials", "modes"):
            given["dt"] = known.pop() if len(known) == 1 else intervals
        else:
            warnings.warn(
                f"sampling intervals differ, {min(known):g} to {max(known):g} ms, and systems are compared sample by "
                f"sample; state --horizon and --delay-window in ms to compare them over equal times", stacklevel=2,
            )  # fmt: skip
    for name in ("horizon", "window"):
        if name in given and given[name] != AUTO and "dt" not in given:
            option = "--horizon" if name == "horizon" else "--delay-window"
            raise ConfigError(f"{option}: is a time in ms, and the files do not say their rate; state --sampling-rate")
    return Comparison().override(**given)


def _announced(files: list[str], what: str, progress: bool) -> Iterator[str]:
    yield from tqdm(files, desc=what, unit="file", delay=1, leave=False, disable=not progress)


def _as_matrix(name: str, recording: dsa.Recording) -> np.ndarray:
    matrix = recording.trials[0]
    if matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"{name} holds a matrix of {' x '.join(map(str, matrix.shape))}; operators are square")
    return matrix


def _groups(names: list[str], files: list[str], group_by: str | None) -> dict[str, str]:
    """System -> group, from the folders or the names of the files: walking_3 and walking-4 are of the group walking."""
    if group_by is None:
        return {}
    if group_by == "folder":
        groups = [Path(file).absolute().parent.name for file in files]
    else:
        groups = [Path(file).stem.rstrip("0123456789").rstrip("_- ") or Path(file).stem for file in files]
    if not 1 < len(set(groups)) < len(groups):
        listed = ", ".join(dict.fromkeys(groups))
        raise ConfigError(
            f"--group-by {group_by} makes the groups {listed}; two or more are needed, one of them of two files"
        )
    return dict(zip(names, groups, strict=True))


def _explained(
    arguments: argparse.Namespace, similarity: dsa.Similarity, recordings: Mapping[str, dsa.Recording]
) -> dsa.Explanation | None:
    """What sets apart the pair asked for, or else the most distant one; needs a time step."""
    pair = arguments.explain
    if pair is None:
        farthest = np.unravel_index(similarity.distances.argmax(), similarity.distances.shape)
        pair = [similarity.labels[index] for index in farthest]
    dt = similarity.comparison.interval(pair[0]) or recordings[pair[0]].dt
    possible = similarity.measure.needs == "operators" and similarity.comparison.windows is None
    if arguments.explain is None and (dt is None or not possible):
        return None
    if dt is None:
        raise ConfigError("--explain speaks of milliseconds; state --sampling-rate")
    apart = similarity.distances[tuple(similarity.labels.index(name) for name in pair)]
    return dsa.explain(similarity, *pair, dt=dt) if apart > 0 else None


def command_line(argv: list[str]) -> str:
    """What to type to get the report again."""
    return f"{called()} {shlex.join(argv)}"
