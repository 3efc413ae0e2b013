"""Results of a run as a table to read and a table to keep."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Row:
    """One comparison; ``ours`` and ``peer`` hold one value for each repeat, the smaller the better."""

    block: str
    case: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    target: float
    outcome: str = ""

    @property
    def ratio(self) -> float:
        """How many times the peer's median is ours."""
        return median(self.peer) / median(self.ours)

    @property
    def span(self) -> tuple[float, float]:
        """Least and greatest ratio that any two repeats give."""
        return min(self.peer) / max(self.ours), max(self.peer) / min(self.ours)


def markdown(rows: Sequence[Row]) -> str:
    """A table for the README."""
    lines = ["| work | ours | peer | ratio (range) | target | outcome |", "|---|---|---|---|---|---|"]
    for row in rows:
        ours, peer = (f"{median(values):.3g} {row.unit}" for values in (row.ours, row.peer))
        ratio = "{:.3g} ({:.3g} - {:.3g})".format(row.ratio, *row.span)
        met = "met" if row.ratio >= row.target else "**missed**"
        lines.append(f"| {row.block}: {row.case} | {ours} | {peer} | {ratio} | {row.target:g}, {met} | {row.outcome} |")
    return "\n".join(lines)


def record(row: Row, noise: float) -> dict[str, str]:
    """A row of the file; ``noise`` is the machine's during the run."""
    numbers = {"ours": median(row.ours), "peer": median(row.peer), "ratio": row.ratio, "target": row.target}
    numbers |= {"lowest": row.span[0], "highest": row.span[1], "noise": noise}
    text = {name: f"{value:.6g}" for name, value in numbers.items()}
    return {"block": row.block, "case": row.case, "unit": row.unit, **text, "outcome": row.outcome}


def save(rows: Sequence[Row], noise: float, path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    records = [record(row, noise) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    os.replace(unfinished, path)
