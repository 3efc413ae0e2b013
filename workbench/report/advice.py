"""What to do next, by what was found. A piece of advice is a function from findings to `Advice`, or None."""

from collections.abc import Callable

from dsa_analysis.alignment import CERTIFIED
from dsa_analysis.choose import LEAST_AGREEMENT
from dsa_analysis.metrics import takes
from workbench.report.findings import Findings
from workbench.report.page import Advice

LOOSE = 0.9  # lower bound / distance (median) below which the certificate is worth tightening
DISAGREEING = 0.1  # agreement of starts below which a pair needs more of them
MOST_RANKS = 20  # that are suggested
CLEAR_STEP = 1.3  # singular value over the next one at a clear cut
TIGHT_RANK = 12  # up to which the tight certificate takes milliseconds a pair


def more_trials(findings: Findings) -> Advice | None:
    """Pairs below their noise floor."""
    below, floor = findings.below_floor, findings.floor
    if below is None or floor is None or not len(below):
        return None
    worst = ", ".join(str(name) for name in floor.sort_values(ascending=False).index[:3])
    n = len(below)
    return Advice(
        f"{n} of {len(findings.table)} pairs {'is' if n == 1 else 'are'} not above the noise floor.",
        f"These data cannot tell them apart. Record more trials, first of {worst}, whose floors are highest: the floor "
        f"falls about as one over the square root of the number of trials.",
    )


def two_halves(findings: Findings) -> Advice | None:
    """No noise floor, because some recordings have one trial."""
    single = [name for name, one in findings.systems.items() if hasattr(one, "trials") and len(one.trials) < 2]
    if findings.floor is not None or not single or findings.similarity.measure.needs == "trials":
        return None
    return Advice(
        f"There is no noise floor: {', '.join(single[:5])}{', ...' * (len(single) > 5)} have a single trial.",
        "Cut long recordings into several trials, so that halves of one system can be compared with each other.",
    )


def another_rank(findings: Findings) -> Advice | None:
    """The cut goes through a cluster of singular values."""
    unclear, rank = findings.unclear_cuts, _rank(findings)
    if not unclear:
        return None
    best = clear_ranks(findings, most=max(MOST_RANKS, rank))
    ranks = (
        f"In all systems the step is clear after {_either(best)} singular values: compare at such a rank, too."
        if best
        else "No rank has a clear step in all systems: let the data choose, or use an estimator for noisy data."
    )
    nearest = min(best, key=lambda clear: abs(clear - rank), default=None)
    return Advice(
        f"The cut at rank {rank} goes through a cluster of singular values in {len(unclear)} of "
        f"{len(findings.operators)} systems.",
        f"Distances may change with the noise. {ranks}",
        f"--rank {nearest}" if nearest else "--rank auto --estimator signal_weighted",
    )


def clear_ranks(findings: Findings, most: int, n: int = 3) -> list[int]:
    """Up to ``n`` ranks from 2 to ``most`` after which the singular values of all systems take a clear step."""
    steps = [(S[:-1] / S[1:])[:most] for S in findings.spectra.values()]
    shared = min(map(len, steps), default=0)
    gaps = {rank: min(float(step[rank - 1]) for step in steps) for rank in range(2, shared + 1)}
    clear = [rank for rank, gap in gaps.items() if gap >= CLEAR_STEP]
    return sorted(sorted(clear, key=lambda rank: -gaps[rank])[:n])


def tighter_bound(findings: Findings) -> Advice | None:
    """The lower bounds are far below the distances."""
    how, share = findings.similarity.comparison, findings.bound_share
    loose = share is not None and share < LOOSE
    if not loose or not takes(findings.similarity.measure, "certificate") or how.certificate == "tight":
        return None
    note = "" if _rank(findings) <= TIGHT_RANK else f" It is slow above rank {TIGHT_RANK}."
    return Advice(
        f"The lower bound is {share:.0%} of the distance (median).",
        f"Distances may be smaller than they look. The tight certificate closes most of the gap.{note}",
        "--certificate tight",
    )


def more_starts(findings: Findings) -> Advice | None:
    """Alignments that did not converge, or whose starts disagree."""
    table = findings.table
    open_gap = ~(table["distance"] - table["lower_bound"] < CERTIFIED)  # of others the alignment is proven optimal
    doubtful = table[open_gap & (~table["converged"] | (table["agreement"] < DISAGREEING))]
    if not len(doubtful) or not takes(findings.similarity.measure, "n_starts"):
        return None
    return Advice(
        f"In {len(doubtful)} of {len(table)} pairs the alignment did not converge, or few of its starts agree.",
        "Their distances may be too large. Give the alignment more starts.",
        "--n-starts 1000",
    )


def other_embedding(findings: Findings) -> Advice | None:
    """The order of the distances depends on the embedding."""
    near = None if findings.choice is None else findings.choice.neighbours["agreement"]
    if near is None or not len(near) or not near.min() < LEAST_AGREEMENT:
        return None
    place = near.idxmin()
    cell = ", ".join(f"{axis} = {value:g}" for axis, value in zip(near.index.names, place, strict=True))
    return Advice(
        f"The order of the distances depends on the embedding: at {cell} their rank correlation with these is "
        f"{near.min():.2f}.",
        "Report the result at both, or state the embedding that your question asks for.",
    )


def a_horizon(findings: Findings) -> Advice | None:
    """Operators predict one sample ahead."""
    how = findings.similarity.comparison
    asked = (how.horizon, how.steps_ahead) != (None, None)
    if findings.similarity.measure.needs == "trials" or asked or not findings.operators:
        return None
    if how.dt is None:
        return Advice(
            "Operators predict one sample ahead, and the sampling rate is not known.",
            "Over one sample slow dynamics hardly move, and all operators look alike. State the rate and a horizon, "
            "or let the data choose one.",
            "--sampling-rate HZ --horizon auto",
        )
    return Advice(
        "Operators predict one sample ahead.",
        "Over one sample slow dynamics hardly move, and all operators look alike. State the time over which your "
        "systems act, or let the data choose it.",
        "--horizon auto",
    )


def intervals(findings: Findings) -> Advice | None:
    """Distances without intervals, where trials could give them."""
    if "ci_low" in findings.table or findings.floor is None or findings.similarity.measure.needs == "trials":
        return None
    return Advice(
        "Distances have no confidence intervals yet.",
        "Draw the trials again to see how much each distance depends on them.",
        "--intervals 100",
    )


def more_systems(findings: Findings) -> Advice | None:
    """Groups that are not told apart for sure."""
    unsure = [value for name, value in findings.statistics.items() if name.startswith("AUROC")]
    if not unsure or not unsure[0].low <= 0.5 <= unsure[0].high:
        return None
    return Advice(
        "The interval of the AUROC of the groups reaches 0.5, which is chance.",
        "Record more systems of each group, or compare at another horizon.",
    )


def other_measures(findings: Findings) -> Advice:
    """What remains to be done in any case."""
    if findings.similarity.measure.needs == "trials":
        text = "By the geometry of matched trials alone, other dynamics can look alike. Compare operators, too."
        return Advice("Does it hold by another measure?", text, "--metric angular")
    text = "Compare at half and at twice the horizon, and by eigenvalues: a result that holds only once is a weak one."
    return Advice("Does it hold by another measure?", text, "--metric spectral")


ADVICE: tuple[Callable[[Findings], Advice | None], ...] = (
    more_trials, two_halves, another_rank, other_embedding, a_horizon, more_starts, tighter_bound, more_systems,
    intervals, other_measures,
)  # fmt: skip


def advice(findings: Findings) -> list[Advice]:
    """All advice that applies, the most urgent first."""
    return [one for tell in ADVICE if (one := tell(findings)) is not None]


def _rank(findings: Findings) -> int:
    return len(next(iter(findings.operators.values())).matrix) if findings.operators else 0


def _either(numbers: list[int]) -> str:
    """1, 2 or 3."""
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))
