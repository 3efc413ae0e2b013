"""The sections of a report about files, in their order on the page; see the package for how to add one."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis import metrics, plotting
from dsa_analysis.display import samples
from dsa_analysis.nulls import EXCHANGE
from workbench.report.advice import advice
from workbench.report.figures import picture
from workbench.report.findings import Findings
from workbench.report.page import Bullets, Facts, Section, Table, Text, csv_of

if TYPE_CHECKING:
    import pandas as pd

MANY = 80  # systems above which a matrix has no names
FEW = 10  # systems or groups up to which each has a colour of its own, and a line in the legend
SIGNIFICANT = 0.05
N_ROWS = 2000  # of the table of pairs on the page; distances.csv has all
NAMES = {
    "system_a": "system", "system_b": "and", "lower_bound": "lower bound", "noise_floor": "noise floor",
    "ci_low": "interval from", "ci_high": "to", "agreement": "starts that agree",
    "p_holm": "p (Holm)", "null": "null (mean)", "scaled_low": "from", "scaled_high": "to",
}  # fmt: skip


def conclusion(findings: Findings) -> Section:
    """What was found, in sentences and in a row of large figures."""
    table, unit, near, far = findings.table, findings.unit, findings.nearest, findings.farthest
    told = f"{len(findings.similarity.labels)} systems compared by {metrics.title(findings.similarity.measure)}: "
    if len(table) == 1:
        told += f"{near['system_a']} and {near['system_b']} are {near['distance']:.3g} {unit} apart."
    else:
        told += (
            f"{near['system_a']} and {near['system_b']} are nearest, {far['system_a']} and {far['system_b']} farthest."
        )
    parts: list[Any] = [Text(told, "lead")]
    facts = [("nearest" if len(table) > 1 else "distance", _pair(near), f"{near['distance']:.3g} {unit}")]
    if len(table) > 1:
        facts.append(("farthest", _pair(far), f"{far['distance']:.3g} {unit}"))
    if findings.below_floor is not None and findings.floor is not None:
        above = len(table) - len(findings.below_floor)
        floor = f"floor {findings.floor.median():.3g} {unit} (median)"
        facts.append(("above their noise floor", f"{above} of {len(table)} pairs", floor))
    if "ci_low" in table:
        apart = int((table["ci_low"] > 0).sum())
        facts.append(("interval above 0", f"{apart} of {len(table)} pairs", "over the choice of trials"))
    if findings.bound_share is not None:
        proven = table.get("certified")
        known = "" if proven is None or not proven.any() else f", {proven.sum()} of {len(table)} pairs certified"
        facts.append(("lower bound", f"{findings.bound_share:.0%} of the distance", f"median{known}"))
    for name, value in findings.statistics.items():
        if name.startswith("AUROC"):
            told = f"AUROC {value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
            facts.append((f"{len(set(findings.groups.values()))} groups", told, "1: told apart; 0.5: chance"))
    if findings.stability is not None:
        verdict, told = findings.stability.verdict.split(": ", 1)
        facts.append(("the order of the distances", verdict, told.split(";")[0].split(" (")[0]))
    for kind, null in findings.nulls.items():
        passed = int((findings.table[f"p_holm_{kind}"] < SIGNIFICANT).sum())
        asks = "pairs that differ" if kind == EXCHANGE else "more alike than chance"
        facts.append((asks, f"{passed} of {len(table)} pairs", f"{len(null.distances)} draws of {kind}, Holm, p < .05"))
    return Section("conclusion", "", [*parts, Facts(facts), *(Text(one) for one in _meanings(findings))])


def _pair(row: "pd.Series") -> str:
    return f"{row['system_a']}, {row['system_b']}"


def _meanings(findings: Findings) -> list[str]:
    """What the floor and the bound say of these systems."""
    said, n = [], len(findings.table)
    if findings.below_floor is not None:
        below = len(findings.below_floor)
        said.append(
            "The noise floor is the distance between two halves of the trials of one system. "
            + (
                f"{below} of {n} pairs {'are' if below > 1 else 'is'} not above it: these data cannot tell them apart."
                if below
                else "Every pair is above its own: all systems can be told apart with these data."
            )
        )
    if findings.bound_share is not None:
        said.append(
            f"The lower bound is {findings.bound_share:.0%} of the distance (median): no alignment can give less."
        )
    return said


def what_next(findings: Findings) -> Section:
    """Advice, by what was found."""
    where = Text("Options go at the end of the command at the foot of this page.", "note")
    return Section("next", "What to do next", [*advice(findings), where])


def warned(findings: Findings) -> Section | None:
    """Warnings, each once."""
    return Section("warnings", "Warnings", [Bullets(findings.concerns, "warning")]) if findings.concerns else None


def distances(findings: Findings) -> Section:
    """Matrix, map and tree."""
    similarity, groups, k = findings.similarity, findings.group_list, len(findings.similarity.labels)
    longest = max(map(len, plotting.shortened(similarity.labels)))
    size = 2.4 + 0.16 * k + (2 if k > 20 else 0.08 * longest)  # names are large where there are few
    figure, axes = _figure(size + 2, size)
    similarity.plot(
        axes, groups=groups or (["systems"] * k if k > MANY else None), floor=findings.floor, names=k <= MANY
    )
    order = "Systems are in the order of their tree."
    dots = " Dots: pairs below their noise floor." if findings.floor is not None else ""
    below = " Below the diagonal: lower bounds." if similarity.measure.bounded else ""
    parts: list[Any] = []
    if groups and len(set(groups)) <= FEW:
        plotting.group_legend(figure, plotting.group_colors(groups), loc="outside upper left", ncols=4)
    parts.append(picture(figure, "distances", f"{order}{below}{dots}"))
    if k > 2:
        figure, axes = _figure(*((6.2, 4.8) if k <= 20 else (11, 8)))
        similarity.plot_map(axes, groups=groups)
        if groups and len(set(groups)) > FEW:
            axes.get_legend().remove()
        told = (
            "Map of the systems (multidimensional scaling). If the stress is below 0.1, distances on it are faithful. "
            "Point at a system or a name to see the whole name."
        )
        parts.append(picture(figure, "map", told))
        figure, axes = _figure(6.2 if k <= 20 else 9, 1.2 + 0.19 * k)
        similarity.plot_tree(axes, groups=groups, floor=findings.floor)
        line = " Dashed: noise floor (median)." if findings.floor is not None else ""
        told = f"Tree of the systems: branches join at the mean distance between their systems.{line}"
        parts.append(picture(figure, "tree", told))
    return Section("distances", "Distances", parts)


def groups(findings: Findings) -> Section | None:
    """How well groups are told apart."""
    if not findings.statistics:
        return None
    members: dict[str, list[str]] = {}
    for system, group in findings.groups.items():
        members.setdefault(group, []).append(system)
    lines = [f"{group}: {', '.join(systems)}" for group, systems in members.items()]
    said = Bullets([f"{name}: {value}" for name, value in findings.statistics.items()])
    return Section("groups", "Groups", [said, Bullets(lines, folded=f"{len(members)} groups")])


def stability(findings: Findings) -> Section | None:
    """Whether the order of the distances holds under other choices."""
    found = findings.stability
    if found is None:
        return None
    size = 3.2 + 0.17 * min(len(found.cells), 40)
    figure, axes = _figure(size + 1.5, size)
    plotting.plot_stability(found, axes)
    axes.set_title("")
    used = ", ".join(f"{name} = {value}" for name, value in zip(found.axes, found.reference, strict=True))
    told = f"Rank correlation of the distances in any two cells. The frame is the comparison of this page: {used}."
    parts: list[Any] = [Text(f"{found.verdict[0].upper()}{found.verdict[1:]}."), picture(figure, "stability", told)]
    shown = found.cells.reset_index().rename(columns={"r_squared": "R squared"})
    told = (
        "Correlation with the comparison of this page, with its interval over systems; fraction of systems that keep "
        "their nearest neighbour; correlation of the distances from two halves of the trials."
    )
    parts.append(Table.of(shown, told, downloads=[csv_of(found.cells.reset_index(), "stability.csv")]))
    if found.left_out:
        lines = [
            f"{', '.join(f'{name} = {value}' for name, value in zip(found.axes, cell, strict=True))}: {reason}"
            for cell, reason in found.left_out
        ]
        parts.append(Bullets(lines, folded=f"{len(lines)} cells were left out, because a system does not support them"))
    return Section("stability", "Under other choices", parts)


AS_SMALL = "p is the fraction of draws whose distance is as small."
KEPT = "Operators are fitted to what is kept, so distances close to the null are expected."
ASKED = {
    EXCHANGE: "Trials were exchanged between the systems of a pair, as if both were recordings of one. p is the "
    "fraction of exchanges after which they are as far apart.",
    "shuffle_times": f"The samples of each trial were shuffled, which leaves no dynamics. {AS_SMALL}",
    "phase": f"The phases of all frequencies were drawn anew, which keeps all spectra. {AS_SMALL} {KEPT}",
    "iaaft": f"The phases of all frequencies were drawn anew, and the values kept. {AS_SMALL} {KEPT}",
    "shuffle_trials": "Each channel got the trials in another order, which takes away what channels share within a "
    f"trial. {AS_SMALL}",
}


def chance(findings: Findings) -> Section | None:
    """Distances against their nulls, in a figure for each, and on the scale from floor to null."""
    if not findings.nulls:
        return None
    parts: list[Any] = []
    for kind, null in findings.nulls.items():
        table = findings.table.sort_values("distance").head(N_ROWS)
        figure, axes = _figure(8, 3.4)
        plotting.plot_nulls(null, axes, findings.unit)
        p_least = 1 / (1 + len(null.distances))
        told = f"{ASKED[kind]} The smallest p of {len(null.distances)} draws is {p_least:.2g}."
        parts.append(picture(figure, f"null_{kind}", told))
        columns = ["system_a", "system_b", "distance", *(c for c in table if c.endswith(f"_{kind}"))]
        shown = table[columns].rename(columns={c: c.removesuffix(f"_{kind}") for c in columns})
        told = "p after Holm's adjustment for the number of pairs."
        if "scaled" in shown:
            told += " Scaled: 0 is two recordings of one system, 1 is the null, with its interval over draws."
        parts.append(Table.of(shown, told, NAMES))
    return Section("chance", "Against chance", parts)


def embedding(findings: Findings) -> Section | None:
    """The windows and the cut, the spectra, and the cells that were looked at."""
    operators = findings.operators
    if not operators:
        return None
    first = next(iter(operators.values())).parameters
    gaps = [operator.gap for operator in operators.values()]
    told = (
        f"Windows of {first.n_delays} delays, {samples(first.delay_interval)} apart; rank {first.rank}; "
        f"{samples(first.steps_ahead)} ahead; estimator {first.estimator}. The last singular value kept is "
        f"{min(gaps):.2f} to {max(gaps):.2f} times the next one: the larger this step, the more stable the cut."
    )
    parts: list[Any] = [Text(told)]
    choice = findings.choice
    if choice is not None:
        figure, axes = _figure(8, 3.6)
        plotting.plot_cells(choice, axes)
        told = f"Embeddings that were looked at; dots are admissible. Chosen by {choice.method}."
        parts.append(picture(figure, "embedding", told))
        if len(near := choice.neighbours):
            shown = near.reset_index()[[*near.index.names, "agreement", "auroc", "gap", "prediction_error"]]
            told = "Neighbours of the chosen embedding. Agreement: rank correlation of their distances with these."
            parts.append(Table.of(shown, told, {"n_delays": "n_delays", "steps_ahead": "steps_ahead"}))
    parts.append(_spectra(findings))
    return Section("embedding", "Embedding", parts)


def _spectra(findings: Findings) -> Any:
    """Singular values and eigenvalues of all operators."""
    operators, grouped = findings.operators, findings.groups
    kind = grouped or {name: name if len(operators) <= FEW else "systems" for name in operators}
    palette = plotting.group_colors(list(kind.values()))
    colors = {name: palette[kind[name]] for name in operators}
    figure, panels = _figure(11, 4, 2)
    values = findings.spectra or {name: _with_next(operator) for name, operator in operators.items()}
    plotting.plot_spectrum(values, next(iter(operators.values())).rank, panels[0], colors)
    plotting.plot_eigenvalues({name: operator.eigenvalues for name, operator in operators.items()}, panels[1], colors)
    if 1 < len(palette) <= FEW:
        named = dict(zip(plotting.shortened(list(palette)), palette.values(), strict=True))
        plotting.group_legend(panels[1], named, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    told = (
        "Left: singular values of the windows of each system; the line is the cut. Right: eigenvalues of the operators."
    )
    return picture(figure, "spectra", told)


def _with_next(operator: Any) -> Any:
    """Singular values and the first one that was cut off."""
    S = operator.singular_values
    return S if np.isinf(operator.gap) else S.new_tensor([*S.tolist(), float(S[-1]) / operator.gap])


def explained(findings: Findings) -> Section | None:
    """Which modes set two systems apart."""
    explanation = findings.explanation
    if explanation is None:
        return None
    figure, panels = _figure(14, 4, 4)
    plotting.plot_explanation(explanation, panels)
    panels[3].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.3), markerscale=0.5)
    first, second = explanation.names
    told = "Both operators in common coordinates, and how much of the difference each mode carries."
    modes = explanation.modes.rename(columns={"time_constant": "time constant (ms)", "frequency": "frequency (Hz)"})
    parts = [Text(f"{first} (first) and {second}:"), picture(figure, "explanation", told), Table.of(modes)]
    return Section("explained", "What sets two systems apart", parts)


def pairs(findings: Findings) -> Section:
    """All pairs, the nearest first."""
    table = findings.table.sort_values("distance")
    if table["agreement"].eq(1).all():
        table = table.drop(columns="agreement")
    shown = table.head(N_ROWS)
    told = f"Distances in {findings.unit}, the nearest first."
    if len(shown) < len(table):
        told += f" The nearest {N_ROWS} of {len(table)}; the file has all."
    downloads = [csv_of(findings.table, "distances.csv")]
    return Section("pairs", "Pairs", [Table.of(shown.dropna(axis=1, how="all"), told, NAMES, downloads=downloads)])


def systems(findings: Findings) -> Section:
    """What each file held, its floor and its nearest neighbour."""
    import pandas as pd

    labels, apart = (
        findings.similarity.labels,
        findings.similarity.distances + np.diag([np.inf] * len(findings.systems)),
    )
    rows = pd.DataFrame({"system": list(labels)})
    if findings.groups:
        rows["group"] = findings.group_list
    for column, value in _contents(findings.systems).items():
        rows[column] = value
    if findings.floor is not None:
        rows["noise floor"] = findings.floor[list(labels)].to_numpy()
    rows["nearest"] = [labels[place] for place in apart.argmin(1)]
    rows["its distance"] = apart.min(1)
    return Section("systems", "Systems", [Table.of(rows, downloads=[csv_of(rows, "systems.csv")])])


def _contents(systems: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Columns about what the files held."""
    if not all(hasattr(one, "trials") for one in systems.values()):
        return {"dimensions": [len(one) for one in systems.values()]}
    lengths = [sorted({len(trial) for trial in one.trials}) for one in systems.values()]
    rates = [one.sampling_rate for one in systems.values()]
    columns: dict[str, list[Any]] = {
        "trials": [len(one.trials) for one in systems.values()],
        "samples": [own[0] for own in lengths],
        "channels": [one.n_channels for one in systems.values()],
    }
    if any(len(own) > 1 for own in lengths):
        columns["samples"] = [f"{own[0]} to {own[-1]}" for own in lengths]
    return columns | ({"rate (Hz)": rates} if None not in rates else {})


def settings(findings: Findings) -> Section:
    """Every choice of the comparison, and how files were read."""
    chosen = {key: value for key, value in findings.similarity.settings.items() if key != "recordings"}
    recordings = findings.similarity.settings["recordings"]
    reading = []
    for key in dict.fromkeys(key for one in recordings.values() for key in one if key != "path"):
        values = list(dict.fromkeys(str(one.get(key)) for one in recordings.values()))
        reading.append(f"reading: {key} = {values[0] if len(values) == 1 else ', '.join(values)}")
    told = [f"{key} = {value}" for key, value in chosen.items() if value is not None]
    unset = ", ".join(key for key, value in chosen.items() if value is None)
    files = [f"{name}: {one['path']}" for name, one in recordings.items()]
    return Section("settings", "Settings", [
        Bullets(told, folded="Comparison"),
        Bullets(reading, folded="Reading"),
        Bullets(files, folded=f"{len(files)} files"),
        *([Text(f"Not set: {unset}.", "note")] if unset else []),
    ])  # fmt: skip


SECTIONS: tuple[Callable[[Findings], Section | None], ...] = (
    conclusion, what_next, warned, distances, groups, stability, chance, embedding, explained, pairs, systems, settings,
)  # fmt: skip


def sections(findings: Findings) -> list[Section | None]:
    """All sections of the page."""
    return [section(findings) for section in SECTIONS]


def in_lines(findings: Findings) -> list[str]:
    """The conclusion as lines of text, for a terminal."""
    lead, facts, *_ = conclusion(findings).parts
    width = max(len(label) for label, _, _ in facts.facts)
    return [lead.text, *(f"  {label:<{width}}  {value}, {remark}" for label, value, remark in facts.facts)]


def _figure(width: float, height: float, n_panels: int = 1) -> tuple[Any, Any]:
    """A figure in inches and its axes, or an array of them side by side."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(1, n_panels)
