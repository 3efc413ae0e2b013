"""Files of recordings -> a report: which of them compute alike, and how far that can be trusted.

Needs no config.yaml; every choice comes from the command line and stands in the report. Into one folder go report.html,
a page that can be sent as it is; distances.csv, one row a pair; and similarity.nc, which `Similarity.load` reads.
"""

import argparse
import fcntl
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from tqdm import tqdm

import dsa_analysis as dsa
from dsa_analysis import Comparison, DataError, plotting
from dsa_analysis.comparison import AUTO
from dsa_analysis.data import check_choice
from dsa_analysis.metrics import as_metric, is_matched, title
from workbench.page import PAGE, bullets, picture, tabular
from workbench.settings import ConfigError, replacing

FILES = ("report.html", "distances.csv", "similarity.nc")
LOADING = ("variable", "axes", "sampling_rate", "smooth", "decimate", "zscore", "align_to", "window", "trials", "units")
LOCK = ".lock"
UNFINISHED = "unfinished_pairs"  # folder of pairs that a rerun need not solve again; gone once the report is there
MANY = 40  # systems above which names are no longer written beside a figure
LEAST_REPLICATES = 20  # below which intervals are refused
N_ROWS = 200  # of the table on the page; the file has all


@dataclass(frozen=True)
class Findings:
    """All that the report tells."""

    systems: Mapping[str, Any]  # recordings, or matrices where the files hold operators
    groups: dict[str, str]  # system -> group; empty where none were asked for
    similarity: dsa.Similarity
    choice: dsa.EmbeddingChoice | None  # where the embedding was not stated
    floor: pd.Series | None  # of each system
    table: pd.DataFrame  # one row a pair
    statistics: dict[str, Any] = field(default_factory=dict)
    explanation: dsa.Explanation | None = None
    concerns: list[str] = field(default_factory=list)


def compare_files(arguments: argparse.Namespace, command: str) -> Path:
    """Do what ``python -m workbench compare`` was asked; the path of the report. Interrupted and called again, goes on.

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
    with _alone_in(folder):
        return _into(folder, arguments, command, started)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold a lock on it, which ends with the process; another process that comes is told."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:  # found before the work, not after
        raise ConfigError(f"{folder}: no such folder can be made, or written to ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another comparison is writing there; wait until it ends, or name another folder by --output"
            ) from None
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _into(folder: Path, arguments: argparse.Namespace, command: str, started: float) -> Path:
    """Compare, and write the report; the lock on the folder is held."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        findings = _find(arguments)
    findings.concerns.extend(dict.fromkeys(str(warning.message) for warning in caught))
    for concern in findings.concerns:
        print(f"warning: {concern}", file=sys.stderr)

    findings.similarity.save(folder / "similarity.nc")
    with replacing(folder / "distances.csv") as temporary:
        findings.table.to_csv(temporary, index=False)
    # names of systems are drawn as they are, and fonts that lack a letter of them are no news for the terminal
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        page = _page(findings, command, time.perf_counter() - started)
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return folder / "report.html"


def _find(arguments: argparse.Namespace) -> Findings:
    choices = {
        name.removeprefix("choice_"): value for name, value in vars(arguments).items() if name.startswith("choice_")
    }
    _check(arguments, choices)
    metric = as_metric(choices.get("metric", "angular"))
    if arguments.operators:
        stated = {"variable": arguments.variable, "axes": "time, channel", "sampling_rate": arguments.sampling_rate}
        loaded = dsa.load_recordings(_announced(arguments.files, "reading"), **stated)
        systems: dict[str, Any] = {name: _as_matrix(name, recording) for name, recording in loaded.items()}
    else:
        loading = {key: getattr(arguments, key) for key in LOADING} | {"keep_non_finite": arguments.omit_non_finite}
        systems = loaded = dsa.omit_trials(
            dsa.load_recordings(_announced(arguments.files, "reading"), **loading),
            non_finite=arguments.omit_non_finite,
            shorter_than=arguments.omit_shorter_than,
            matched=is_matched(metric),
        )
    groups = _groups(list(systems), arguments.files, arguments.group_by)
    how = _comparison(arguments, choices, loaded)
    single = [] if arguments.operators else [name for name, system in systems.items() if len(system.trials) < 2]
    if single and arguments.intervals:
        raise ConfigError(f"--intervals: draws trials again, but {', '.join(single)} have a single one")
    for name in arguments.explain or ():
        check_choice("--explain", name, systems)

    choice = None
    if AUTO in (how.n_delays, how.rank, how.horizon):
        choice = dsa.choose_embedding(systems, how, device=arguments.device)
        how = choice.applied_to(how)
    store = Path(arguments.output) / UNFINISHED
    similarity = dsa.compare(systems, how=how, store=store, device=arguments.device)
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
            floor = dsa.noise_floor(systems, how, n_splits=arguments.n_splits, device=arguments.device)
            table["noise_floor"] = _floor_of_pairs(table, floor)
    replicates = None
    if arguments.intervals:
        replicates = dsa.trial_replicates(
            systems, similarity, n_replicates=arguments.intervals, seed=how.seed, device=arguments.device
        )
        pairs = np.triu_indices(len(systems), 1)
        table["ci_low"], table["ci_high"] = (limit[pairs] for limit in dsa.distance_intervals(similarity, replicates))

    statistics: dict[str, Any] = {}
    if groups:
        labels, settings = list(groups.values()), {"replicates": replicates, "seed": how.seed}
        statistics = {
            "AUROC, pairs of two groups farther apart than pairs of one": dsa.auroc_interval(
                similarity, labels, **settings
            ),
            "silhouette of the groups": dsa.silhouette_interval(similarity, labels, **settings),
            "PERMANOVA, pseudo-F": dsa.permanova(similarity, labels, seed=how.seed),
        }
    explanation = _explained(arguments, similarity, loaded)
    return Findings(systems, groups, similarity, choice, floor, table, statistics, explanation)


def _check(arguments: argparse.Namespace, choices: Mapping[str, Any]) -> None:
    """Refuse options that could not be followed, before any file is read."""
    metric = as_metric(choices.get("metric", "angular"))
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
        if len(known) == 1 or timed or metric.needs == "trials":
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


def _announced(files: list[str], what: str) -> Iterator[str]:
    yield from tqdm(files, desc=what, unit="file", delay=1, leave=False)


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


def _floor_of_pairs(table: pd.DataFrame, floor: pd.Series) -> np.ndarray:
    """Mean floor of the two systems of each pair."""
    return (floor[table["system_a"]].to_numpy() + floor[table["system_b"]].to_numpy()) / 2


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


# ---- the page --------------------------------------------------------------------------------------------------------


def _page(findings: Findings, command: str, seconds: float) -> str:
    similarity = findings.similarity
    parts = [f"<p>{escape(sentence)}</p>" for sentence in _sentences(findings)]
    if findings.concerns:
        parts += ["<h2>Warnings</h2>", bullets(findings.concerns, "warning")]
    parts += ["<h2>Distances</h2>", _matrix(findings)]
    if len(similarity.labels) > 2:
        parts.append(_map(findings))
    if findings.statistics:
        parts += ["<h2>Groups</h2>", bullets([f"{name}: {value}" for name, value in findings.statistics.items()])]
    operators = [o for o in similarity.operators.values() if isinstance(o, dsa.Operator)]
    if operators:
        parts += ["<h2>Embedding</h2>", _embedding(findings, operators)]
    if findings.explanation:
        parts += [f"<h2>What sets {' and '.join(map(escape, findings.explanation.names))} apart</h2>"]
        parts += [_explanation(findings), tabular(findings.explanation.modes)]
    parts += ["<h2>Pairs</h2>", tabular(findings.table.sort_values("distance").head(N_ROWS))]
    if len(findings.table) > N_ROWS:
        parts.append(f"<p>The nearest {N_ROWS} of {len(findings.table)}; all stand in distances.csv.</p>")
    parts += ["<h2>Systems</h2>", bullets([_described(name, system) for name, system in findings.systems.items()])]
    parts += ["<h2>Settings</h2>", _settings(similarity.settings)]
    software = f"compute-alike {version('compute-alike')}, torch {torch.__version__}"
    made = f"{time.strftime('%Y-%m-%d %H:%M')}, {seconds:.0f} s; {software}"
    return PAGE.format(body="\n".join(parts), command=escape(command), made=escape(made))


def _described(name: str, system: Any) -> str:
    return str(system) if isinstance(system, dsa.Recording) else f"{name}: operator of {len(system)} dimensions"


def _sentences(findings: Findings) -> list[str]:
    similarity, table = findings.similarity, findings.table
    unit = similarity.unit
    near, far = (table.loc[at()] for at in (table["distance"].idxmin, table["distance"].idxmax))
    said = [
        f"{len(similarity.labels)} systems, {len(table)} pairs, compared by {title(similarity.measure)}.",
        f"Nearest are {near['system_a']} and {near['system_b']} ({near['distance']:.3g} {unit}), farthest "
        f"{far['system_a']} and {far['system_b']} ({far['distance']:.3g} {unit}).",
    ]
    if similarity.measure.bounded:
        gap = ((table["distance"] - table["lower_bound"]) / table["distance"].where(table["distance"] > 0)).median()
        said.append(
            f"The lower bound is {1 - gap:.0%} of the distance (median): no alignment can give a smaller distance."
        )
    if findings.floor is not None:
        below = int((table["distance"] <= table["noise_floor"]).sum())
        said.append(
            f"The noise floor, the distance between halves of one system's trials, is {findings.floor.median():.3g} "
            f"{unit} (median). {below} of {len(table)} pairs are below their noise floor: with these data they cannot "
            f"be told apart."
        )
    if "ci_low" in table:
        alike = int((table["ci_low"] == 0).sum())
        said.append(f"{alike} of {len(table)} intervals over trials reach 0.")
    return said


def _matrix(findings: Findings) -> str:
    similarity, groups = findings.similarity, list(findings.groups.values()) or None
    k = len(similarity.labels)
    floor = None
    if findings.floor is not None:
        own = findings.floor[list(similarity.labels)].to_numpy()
        floor = (own[:, None] + own) / 2
    size = min(12.0, 4 + 0.22 * k)
    figure = Figure((size + 1.5, size), layout="constrained")
    axes = figure.subplots()
    if groups is None and k > MANY:
        groups = ["all"] * k
    below = "lower_bounds" if similarity.measure.bounded else None
    plotting.plot_distances(similarity, axes, groups, below=below, floor=floor)
    if findings.groups:
        plotting.group_legend(axes, plotting.group_colors(groups or []), loc="lower left", bbox_to_anchor=(0, -0.2))
    dots = " Dots: pairs below their noise floor." if floor is not None else ""
    return picture(figure, f"Systems in the order of their tree.{dots}")


def _map(findings: Findings) -> str:
    similarity = findings.similarity
    places, stress = similarity.to_plane()
    figure = Figure((6.5, 5), layout="constrained")
    axes = figure.subplots()
    unit = similarity.unit
    plotting.plot_map(places, stress, list(findings.groups.values()) or ["system"] * len(places), axes, unit=unit)
    if findings.groups:
        axes.legend(frameon=False)
    elif len(places) <= MANY:
        for name, place in zip(similarity.labels, places, strict=True):
            axes.annotate(name, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    return picture(
        figure, "Multidimensional scaling map. Low stress (below 0.1) means that distances on the map are faithful."
    )


def _embedding(findings: Findings, operators: list[dsa.Operator]) -> str:
    p = operators[0].parameters
    names = list(findings.similarity.labels)
    values = {
        name: torch.cat([o.singular_values, o.singular_values[-1:] / o.gap])
        for name, o in zip(names, operators, strict=True)
    }
    figure = Figure((12.5 if findings.choice else 6.5, 3.5), layout="constrained")
    panels = figure.subplots(1, 2 if findings.choice else 1, squeeze=False)[0]
    plotting.plot_spectrum(values, p.rank, panels[0], plotting.group_colors(names))
    if len(names) <= 10:
        panels[0].legend(frameon=False, fontsize=8)
    gaps = [operator.gap for operator in operators]
    text = (
        f"{p.n_delays} delays {p.delay_interval} samples apart, rank {p.rank}, estimator {p.estimator}. The last value "
        f"kept is {min(gaps):.2f} to {max(gaps):.2f} times the next; the clearer that step, the more stable the cut."
    )
    caption = "Singular values of the windows of each system; the line is the cut."
    if findings.choice:
        plotting.plot_cells(findings.choice, panels[1])
        text += f" Chosen by {findings.choice.method}."
        caption += " Right: the cells that were looked at, dots where admissible."
    return f"<p>{escape(text)}</p>" + picture(figure, caption)


def _explanation(findings: Findings) -> str:
    figure = Figure((14, 3.6), layout="constrained")
    plotting.plot_explanation(findings.explanation, axes := figure.subplots(1, 4))  # type: ignore[arg-type]
    axes[3].legend(frameon=False)
    return picture(figure, "Both operators in common coordinates, and how much of the difference each mode carries.")


def _settings(settings: Mapping[str, Any]) -> str:
    lines = [f"{key} = {value}" for key, value in settings.items() if key != "recordings"]
    each = settings["recordings"].values()
    for key in dict.fromkeys(key for one in each for key in one if key != "path"):
        values = list(dict.fromkeys(str(one.get(key)) for one in each))
        lines.append(f"reading: {key} = {values[0] if len(values) == 1 else ', '.join(values)}")
    return bullets(lines) + bullets([f"{name}: {one['path']}" for name, one in settings["recordings"].items()])


def command_line(argv: list[str]) -> str:
    """What to type to get the report again."""
    return f"python -m workbench {shlex.join(argv)}"
