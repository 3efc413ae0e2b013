"""Names in figures: short ones, and those beside the points of a map, which cover no point, no other name and no line.

A name goes away from the other points, as near to its own as there is room, and gets a line to its point where it does
not stand beside it. Lines do not run through names. Where there is no room for a name, a number stands for it, and a
list below the axes says which.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

LONGEST = 28  # characters of a name in a figure; longer ones are shortened
STARTS = (13, 20, 6)  # characters kept before a cut in the middle, in the order in which they are tried
WORD = re.compile(r"[^\W_]+")
RADIUS = 4.0  # of a point, in typographic points, as all lengths here
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
STEPS = RADIUS + 1 + np.concatenate([[0], np.arange(5, 65, 7.5)])  # from a point to its name
BESIDE = RADIUS + 3  # names this near to their points need no line
TRIES = 3
PASSES = 5  # in which names without room become numbers


def shortened(names: Sequence[str]) -> list[str]:
    """Names for a figure: if some are long, all go without the words they share, which become "…".

    Those that are still long are cut in the middle, where they stay different; otherwise they get a number.
    """
    if all(len(name) <= LONGEST for name in names):
        return list(names)
    spare = _without_shared_words(names)
    for start in STARTS:
        cut = [n if len(n) <= LONGEST else f"{n[:start]}…{n[start + 1 - LONGEST :]}" for n in spare]
        if len(set(cut)) == len(set(names)):
            return cut
    return [n if len(n) <= LONGEST else f"{n[: LONGEST - 5]}… {k}" for k, n in enumerate(names, 1)]


def _without_shared_words(names: Sequence[str]) -> list[str]:
    """Names without the words that are the same in all: at any place if all have equally many, or at the ends."""
    if len(set(names)) < 2:
        return list(names)
    words = [WORD.findall(name) for name in names]
    least, most = min(map(len, words)), max(map(len, words))
    same = [len({own[place] for own in words}) == 1 for place in range(-least, least)]
    from_end, from_start = same[:least], same[least:]
    if least < most:  # what is in the middle of one name may be anywhere in another
        lead = next((k for k in range(least) if not from_start[k]), least)
        trail = next((k for k in range(least - lead) if not from_end[-1 - k]), least - lead)
        from_start, from_end = [True] * lead, [True] * trail
    else:
        from_end = []
    return [
        _spared(name, [*from_start, *[False] * (len(own) - len(from_start) - len(from_end)), *from_end])
        for name, own in zip(names, words, strict=True)
    ]


def _spared(name: str, shared: Sequence[bool]) -> str:
    """A name with "…" for each run of words that are shared."""
    told, dropped, end = "", False, 0
    for word, dropping in zip(WORD.finditer(name), shared, strict=True):
        if not dropping:
            told += ("…" if dropped else name[end : word.start()]) + word[0]
            end = word.end()
        dropped = dropping
    return told + ("…" if dropped else name[end:])


def write_names(
    axes: Axes, places: np.ndarray, names: Sequence[str], others: np.ndarray | None = None, size: float | None = None
) -> list[str]:
    """Write a name at each of some places, without overlaps; names without room get a number, and a list below.

    Parameters
    ----------
    axes : matplotlib Axes
        With their final limits.
    places : (n, 2)
    names : n texts
    others : (m, 2), optional
        The points that are drawn, if they are not the ``places``. Names do not cover them.
    size : float, optional
        Of the font, in points. By default it depends on the number of names.

    Returns
    -------
    list of str
        Names that have room neither for themselves nor for a number; the title counts them.
    """
    size = size or (8.0 if len(names) <= 20 else 6.5)
    drawn = places if others is None else others
    _lay_out(axes)
    room, listed = np.array(axes.bbox.size) * 72 / float(axes.figure.dpi), list[int]()
    for last in (*[False] * PASSES, True):
        numbers = {index: f"[{k}]" for k, index in enumerate(listed, 1)}
        below = _list_below(axes, _columns(names, listed, room, size), size)
        written, late = _write(axes, places, [numbers.get(k, name) for k, name in enumerate(names)], drawn, size)
        more = sorted({*listed, *late})
        if last or more == listed or not _columns(names, more, room, size):
            break
        for artist in (*below, *written):
            artist.remove()
        listed = more
    if late:
        axes.set_title(f"{axes.get_title()}, no room for {len(late)} name{'s' * (len(late) > 1)}")
    return [names[index] for index in late]


def _lay_out(axes: Axes) -> None:
    """Move the axes to where they will be drawn."""
    figure = axes.figure.canvas.figure
    if (layout := figure.get_layout_engine()) is not None:  # otherwise it moves the points later
        layout.execute(figure)
    axes.apply_aspect()


def _write(
    axes: Axes, places: np.ndarray, names: Sequence[str], drawn: np.ndarray, size: float
) -> tuple[list[Annotation], list[int]]:
    """Write names, and return what was written and the indices of those without room."""
    _lay_out(axes)
    scale = 72 / float(axes.figure.dpi)  # from pixels to typographic points
    anchors, drawn = (scale * np.asarray(axes.transData.transform(points)) for points in (places, drawn))
    frame = scale * np.asarray(axes.bbox.extents)
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": size, "parse_math": False, "in_layout": False}
    texts = [
        axes.annotate(name, place, (0, 0), ha="center", va="center", **style)
        for name, place in zip(names, places, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it will be told of when they are drawn
        extents = [scale * np.array(text.get_window_extent().size) + 0.1 * size for text in texts]
    boxes = _arranged(anchors, drawn, extents, frame)
    arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": RADIUS}
    written, late = [], []
    for index, (text, anchor, box) in enumerate(zip(texts, anchors, boxes, strict=True)):
        if np.isnan(box).any():
            text.remove()
            late.append(index)
            continue
        written.append(text)
        text.set_position((box[:2] + box[2:]) / 2 - anchor)
        end = np.clip(anchor, box[:2], box[2:]) - anchor
        if np.linalg.norm(end) > BESIDE:
            written.append(axes.annotate("", text.xy, end, arrowprops=arrow, **style))
    return written, late


def _columns(names: Sequence[str], listed: Sequence[int], room: np.ndarray, size: float) -> list[list[str]]:
    """Numbered names in columns below axes of some width and height; none if they take more than half of the height."""
    lines = [f"[{k}] {names[index]}" for k, index in enumerate(listed, 1)]
    longest = max(map(len, lines), default=0) + 2
    n_rows = -(-len(lines) // max(1, int(room[0] // (longest * 0.56 * size))))
    fits = n_rows * 1.3 * size <= room[1] / 2
    return [lines[start : start + n_rows] for start in range(0, len(lines), n_rows)] if lines and fits else []


def _list_below(axes: Axes, columns: Sequence[Sequence[str]], size: float) -> list[Annotation]:
    """Write columns below the label of the x axis, where the layout of the figure makes room for them."""
    under = axes.xaxis.get_tightbbox()
    down = 0 if under is None else (under.y0 - axes.bbox.y0) * 72 / float(axes.figure.dpi)
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": size, "parse_math": False}
    return [
        axes.annotate(
            "\n".join(column), (place / len(columns), 0), (0, down - size), xycoords="axes fraction", va="top", **style
        )
        for place, column in enumerate(columns)
    ]


def _arranged(anchors: np.ndarray, drawn: np.ndarray, extents: Sequence[np.ndarray], frame: np.ndarray) -> np.ndarray:
    """Boxes (left, bottom, right, top) of the names, NaN where there is no room: the best of a few arrangements.

    Names are placed one after the other, those in a crowd first. Those that found no room come first the next time.
    """
    crowd = (1 / (200 + ((anchors[:, None] - drawn) ** 2).sum(-1))).sum(1)
    order, best = np.argsort(-crowd, kind="stable"), np.full((len(anchors), 4), np.nan)
    candidates = [_candidates(anchor, drawn, extent, frame) for anchor, extent in zip(anchors, extents, strict=True)]
    for _ in range(TRIES):
        boxes, lines = np.full_like(best, np.nan), np.empty((0, 2))
        for index in order:
            free = _free(anchors[index], candidates[index], boxes[~np.isnan(boxes[:, 0])], lines)
            if free is not None:
                boxes[index] = free
                lines = np.vstack([lines, _line(anchors[index], free)])
        if np.isnan(boxes).sum() < np.isnan(best).sum():
            best = boxes
        late = np.isnan(boxes[order, 0])
        if not late.any():
            break
        order = np.concatenate([order[late], order[~late]])
    return best


def _line(anchor: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points of the line to a name; none if it stands beside its point."""
    way = np.clip(anchor, box[:2], box[2:]) - anchor
    length = np.linalg.norm(way)
    return anchor + np.arange(0, 1, 3 / length)[:, None] * way if length > BESIDE else np.empty((0, 2))


def _free(anchor: np.ndarray, candidates: np.ndarray, names: np.ndarray, lines: np.ndarray) -> np.ndarray | None:
    """The first candidate that covers no name and no line, and whose own line crosses no name."""
    for box in candidates[~_overlaps(candidates, names)]:
        if not _inside(lines, box[None]) and not _inside(_line(anchor, box), names):
            return np.asarray(box)
    return None


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes overlap any of the others."""
    both: np.ndarray = (boxes[:, None, :2] < others[:, 2:]) & (others[:, :2] < boxes[:, None, 2:])
    return np.asarray(np.any(np.all(both, axis=-1), axis=1))


def _inside(points: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether any of some points is in any of some boxes."""
    return bool(((points[:, None] > boxes[:, :2]) & (points[:, None] < boxes[:, 2:])).all(-1).any())


def _candidates(anchor: np.ndarray, drawn: np.ndarray, extent: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Boxes for a name that cover no point, the best first: near its own point, and away from the points near to it."""
    away = anchor - drawn
    near = (away / (1 + (away**2).sum(1, keepdims=True))).sum(0)
    outward = np.arctan2(near[1], near[0]) if near.any() else 0.0
    turned = ANGLES[np.argsort(np.abs((ANGLES - outward + np.pi) % (2 * np.pi) - np.pi), kind="stable")]
    directions = np.round(np.stack([np.cos(turned), np.sin(turned)], -1), 6)
    half = extent / 2
    # a name to the right starts where its line ends, one to the left ends there, one above or below is in the middle
    centres = anchor + STEPS[:, None, None] * directions + half * np.sign(directions) * [1, 0.5]
    centres[..., 1] += (directions[:, 0] == 0) * np.sign(directions[:, 1]) * half[1] / 2
    boxes = np.concatenate([centres - half, centres + half], -1).reshape(-1, 4)
    boxes = boxes[((boxes[:, :2] > frame[:2]) & (boxes[:, 2:] < frame[2:])).all(1)]
    return boxes[~_overlaps(boxes, np.hstack([drawn - RADIUS, drawn + RADIUS]))]
