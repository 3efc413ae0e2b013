"""The report that ``python -m workbench compare --groups`` writes of a `GroupStudy`: a page and tables as CSV."""

import os
import time
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from workbench import plotting
from workbench.networks.study import GroupStudy
from workbench.networks.tables import between_groups, groups_of
from workbench.page import PAGE, bullets, picture, tabular
from workbench.settings import replacing


def write_report(study: GroupStudy, found: pd.DataFrame, folder: Path, command: str) -> Path:
    """Write report.html, verdicts.csv (``found``), scores.csv, distances.csv and over_learning.csv.

    Returns the page's path.
    """
    tables = {
        "verdicts": found,
        "scores": study.scores.reset_index(),
        "distances": study.to_reference,
        "over_learning": study.over_learning,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        with replacing(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    parts = [
        f"<p>{escape(sentence)}</p>"
        for sentence in (
            f"{len(study.ours.groups)} groups, {len(study.to_reference) // len(study.how.measures)} networks, seed "
            f"{study.seed}; the reference is {study.reference}, which learnt {study.ours.master} alone.",
        )
    ]
    parts += [
        "<h2>Verdicts</h2>",
        tabular(found),
    ]
    parts += ["<h2>Distances to the reference</h2>", _against(study)]
    parts += ["<h2>Between groups</h2>", _between(study)]
    parts += ["<h2>Over learning</h2>", _learning(study)]
    parts += ["<h2>What distances go along with</h2>", tabular(tables["scores"])]
    if study.concerns:
        said = [f"{count} times: {what}" for what, count in study.concerns.most_common()]
        parts += ["<h2>Warnings</h2>", bullets(said, "warning")]
    runs = sorted({os.path.relpath(run.folder) for run in study.trained.runs.values()})
    parts += ["<h2>Runs</h2>", bullets(runs), "<h2>Settings</h2>", f"<pre>{escape(study.ours.to_yaml())}</pre>"]
    made = time.strftime("%Y-%m-%d %H:%M")
    with replacing(folder / "report.html") as temporary:
        page = PAGE.format(body="\n".join(parts), command=escape(command), made=escape(made))
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


def _against(study: GroupStudy) -> str:
    figure = Figure((4.2 * len(study.how.shown), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(study.how.shown), squeeze=False)[0], study.how.shown, strict=True):
        own = study.to_reference[study.to_reference["measure"] == name]
        floor = study.floors(name)["floor"].median() if study.has_floor(name) else None
        plotting.plot_against(own, "performance", axes, floor).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(figure, "Every network (dots) and every group (mean, from least to most).")


def _between(study: GroupStudy) -> str:
    families = {group: study.family(group) for group in study.ours.groups}
    figure = Figure((5.5 * len(study.how.shown), 9), layout="constrained")
    for (above, below), name in zip(
        figure.subplots(2, len(study.how.shown), squeeze=False).T, study.how.shown, strict=True
    ):
        similarity = study.among(name)
        plotting.plot_between(between_groups(similarity), families, above).set_title(name)
        plotting.plot_map(*similarity.to_plane(), groups_of(similarity), families, below)
    return picture(figure, "Mean distances of groups, and a map of all networks (multidimensional scaling).")


def _learning(study: GroupStudy) -> str:
    figure = Figure((4.2 * len(study.how.shown), 6.5), layout="constrained")
    for column, panels in zip(
        ("progress", "performance"), figure.subplots(2, len(study.how.shown), squeeze=False), strict=True
    ):
        for axes, name in zip(panels, study.how.shown, strict=True):
            own = study.over_learning[study.over_learning["measure"] == name]
            plotting.plot_over_learning(own, column, axes).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(figure, "Distance to the reference at matched shares of training, and at matched performance.")
