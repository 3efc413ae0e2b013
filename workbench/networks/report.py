"""Reports that ``python -m workbench compare --groups`` writes: a page with figures, and its tables as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from workbench import plotting
from workbench.networks.study import GroupStudy
from workbench.networks.tables import between_groups, groups_of
from workbench.networks.verdicts import pooled_scores, verdicts
from workbench.report.figures import PLAIN, picture
from workbench.report.page import Bullets, Code, Picture, Section, Table, Text, as_csv, csv_of, render
from workbench.settings import replacing
from workbench.terminal import relative

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
    runs = sorted({relative(run.folder) for run in study.trained.runs.values()})
    with rc_context(PLAIN):
        body = [
            Section("head", "", [Text(said, "lead")]),
            Section("verdicts", "Verdicts", [_table(tables, "verdicts")]),
            Section("reference", "Distances to the reference", [_against(study), _table(tables, "distances")]),
            Section("groups", "Distances between groups", [_between(study)]),
            Section("learning", "Over learning", [_learning(study)]),
            Section("scores", "What distances correlate with", [_table(tables, "scores")]),
            _warnings([study]),
            Section("runs", "Runs", [Bullets(runs)]),
            Section("settings", "Settings", [Code(study.ours.to_yaml(), folded="Section groups of the settings")]),
        ]
    return _write(folder, body, tables, command)


def write_pooled_report(studies: Sequence[GroupStudy], folder: Path, command: str) -> Path:
    """Write the report of several seeds: report.html, verdicts.csv and scores.csv; the path of report.html."""
    tables = {"verdicts": verdicts(studies), "scores": pooled_scores(studies).reset_index()}
    seeds = ", ".join(str(study.seed) for study in studies)
    told = f"Seeds {seeds}; intervals are over seeds. The folder of each seed has a report of its own."
    body = [
        Section("head", "", [Text(told, "lead")]),
        Section("verdicts", "Verdicts", [_table(tables, "verdicts")]),
        Section("scores", "What distances correlate with", [_table(tables, "scores")]),
        _warnings(studies),
        Section("settings", "Settings", [Code(studies[0].ours.to_yaml(), folded="Section groups of the settings")]),
    ]
    return _write(folder, body, tables, command)


def _table(tables: Mapping[str, "pd.DataFrame"], name: str) -> Table:
    return Table.of(tables[name], downloads=[csv_of(tables[name], f"{name}.csv")])


def _warnings(studies: Sequence[GroupStudy]) -> Section | None:
    lines = [
        f"{count} times: {what}" + f" (seed {study.seed})" * (len(studies) > 1)
        for study in studies
        for what, count in study.concerns.most_common()
    ]
    return Section("warnings", "Warnings", [Bullets(lines, "warning")]) if lines else None


def _write(folder: Path, body: Sequence[Section | None], tables: Mapping[str, "pd.DataFrame"], command: str) -> Path:
    for name, frame in tables.items():
        with replacing(folder / f"{name}.csv") as temporary:
            temporary.write_text(as_csv(frame), encoding="utf-8")
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(render("Do they compute alike?", body, command), encoding="utf-8")
    return folder / "report.html"


# ---- figures ---------------------------------------------------------------------------------------------------------


def _against(study: GroupStudy) -> Picture:
    names = study.how.shown
    figure = Figure((4.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = study.to_reference[study.to_reference["measure"] == name]
        floor = study.floors(name)["floor"].median() if study.has_floor(name) else None
        plotting.plot_against(own, "performance", axes, floor, study.unit(name)).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(
        figure, "reference", "Networks (dots) and groups (circles: mean, bars: nearest to farthest network)."
    )


def _between(study: GroupStudy) -> Picture:
    names, families = study.how.shown, {group: study.family(group) for group in study.ours.groups}
    figure = Figure((5.5 * len(names), 9), layout="constrained")
    for (above, below), name in zip(figure.subplots(2, len(names), squeeze=False).T, names, strict=True):
        similarity = study.among(name)
        plotting.plot_between(between_groups(similarity), families, above, similarity.unit).set_title(name)
        plotting.plot_map(*similarity.to_plane(), groups_of(similarity), families, below, similarity.unit)
    return picture(
        figure, "groups", "Mean distances between groups, and a map of all networks (multidimensional scaling)."
    )


def _learning(study: GroupStudy) -> Picture:
    names, columns = study.how.shown, ("progress", "performance")
    figure = Figure((4.2 * len(names), 6.5), layout="constrained")
    for column, panels in zip(columns, figure.subplots(2, len(names), squeeze=False), strict=True):
        for axes, name in zip(panels, names, strict=True):
            own = study.over_learning[study.over_learning["measure"] == name]
            plotting.plot_over_learning(own, column, axes, study.unit(name)).set_title(name)
    axes.legend(fontsize="x-small", frameon=False)
    return picture(
        figure, "learning", "Distance to the reference at equal fractions of training, and at equal performance."
    )
