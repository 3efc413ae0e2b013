"""Reports that ``python -m workbench compare --groups`` writes: a page with figures, and its tables as CSV."""

import os
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from workbench import plotting
from workbench.networks.study import GroupStudy
from workbench.networks.tables import between_groups, groups_of
from workbench.networks.verdicts import pooled_scores, verdicts
from workbench.page import PAGE, bullets, picture, tabular
from workbench.settings import replacing

if TYPE_CHECKING:
    import pandas as pd


def write_report(study: GroupStudy, found: "pd.DataFrame", folder: Path, command: str) -> Path:
    """Write the report of one study.

    Parameters
    ----------
    study : GroupStudy
    found : DataFrame
        From `verdicts`.
    folder : Path
        Made if needed. Gets report.html, verdicts.csv, scores.csv, distances.csv and over_learning.csv.
    command : str
        The command that was run, for the foot of the page.

    Returns
    -------
    Path
        Of report.html.
    """
    tables = {
        "verdicts": found,
        "scores": study.scores.reset_index(),
        "distances": study.to_reference,
        "over_learning": study.over_learning,
    }
    n_networks = len(study.to_reference) // len(study.how.measures)
    said = (
        f"{len(study.ours.groups)} groups, {n_networks} networks, seed {study.seed}. The reference is "
        f"{study.reference}, which learnt {study.ours.master} alone."
    )
    runs = sorted({os.path.relpath(run.folder) for run in study.trained.runs.values()})
    body = [
        f"<p>{escape(said)}</p>",
        *("<h2>Verdicts</h2>", tabular(found)),
        *("<h2>Distances to the reference</h2>", _against(study)),
        *("<h2>Distances between groups</h2>", _between(study)),
        *("<h2>Over learning</h2>", _learning(study)),
        *("<h2>What distances correlate with</h2>", tabular(tables["scores"])),
        *_warnings([study]),
        *("<h2>Runs</h2>", bullets(runs)),
        *("<h2>Settings</h2>", f"<pre>{escape(study.ours.to_yaml())}</pre>"),
    ]
    return _write(folder, body, tables, command)


def write_pooled_report(studies: Sequence[GroupStudy], folder: Path, command: str) -> Path:
    """Write the report of several seeds: report.html, verdicts.csv and scores.csv; the path of report.html."""
    tables = {"verdicts": verdicts(studies), "scores": pooled_scores(studies).reset_index()}
    seeds = ", ".join(str(study.seed) for study in studies)
    body = [
        f"<p>Seeds {seeds}; intervals are over seeds. The folder of each seed has a report of its own.</p>",
        *("<h2>Verdicts</h2>", tabular(tables["verdicts"])),
        *("<h2>What distances correlate with</h2>", tabular(tables["scores"])),
        *_warnings(studies),
        *("<h2>Settings</h2>", f"<pre>{escape(studies[0].ours.to_yaml())}</pre>"),
    ]
    return _write(folder, body, tables, command)


def _warnings(studies: Sequence[GroupStudy]) -> list[str]:
    lines = [
        f"{count} times: {what}" + f" (seed {study.seed})" * (len(studies) > 1)
        for study in studies
        for what, count in study.concerns.most_common()
    ]
    return ["<h2>Warnings</h2>", bullets(lines, "warning")] if lines else []


def _write(folder: Path, body: Sequence[str], tables: Mapping[str, "pd.DataFrame"], command: str) -> Path:
    for name, frame in tables.items():
        with replacing(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    made = time.strftime("%Y-%m-%d %H:%M")
    with replacing(folder / "report.html") as temporary:
        page = PAGE.format(body="\n".join(body), command=escape(command), made=escape(made))
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


# ---- figures ---------------------------------------------------------------------------------------------------------


def _against(study: GroupStudy) -> str:
    names = study.how.shown
    figure = Figure((4.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = study.to_reference[study.to_reference["measure"] == name]
        floor = study.floors(name)["floor"].median() if study.has_floor(name) else None
        plotting.plot_against(own, "performance", axes, floor, study.unit(name)).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(figure, "Networks (dots) and groups (circles: mean, bars: nearest to farthest network).")


def _between(study: GroupStudy) -> str:
    names, families = study.how.shown, {group: study.family(group) for group in study.ours.groups}
    figure = Figure((5.5 * len(names), 9), layout="constrained")
    for (above, below), name in zip(figure.subplots(2, len(names), squeeze=False).T, names, strict=True):
        similarity = study.among(name)
        plotting.plot_between(between_groups(similarity), families, above, similarity.unit).set_title(name)
        plotting.plot_map(*similarity.to_plane(), groups_of(similarity), families, below, similarity.unit)
    return picture(figure, "Mean distances between groups, and a map of all networks (multidimensional scaling).")


def _learning(study: GroupStudy) -> str:
    names, columns = study.how.shown, ("progress", "performance")
    figure = Figure((4.2 * len(names), 6.5), layout="constrained")
    for column, panels in zip(columns, figure.subplots(2, len(names), squeeze=False), strict=True):
        for axes, name in zip(panels, names, strict=True):
            own = study.over_learning[study.over_learning["measure"] == name]
            plotting.plot_over_learning(own, column, axes, study.unit(name)).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(figure, "Distance to the reference at equal fractions of training, and at equal performance.")
