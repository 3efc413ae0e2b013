"""Names beside the points of a map: each where it covers no point, no other name and no line to one.

A name goes away from the other points, as near to its own as there is room, and gets a line to its point where it does
not stand beside it. Lines do not run through names.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

RADIUS = 4.0  # of a point, in typographic points, as all lengths here
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
STEPS = RADIUS + 1 + np.concatenate([[0], np.arange(5, 65, 7.5)])  # from a point to its name
BESIDE = RADIUS + 3  # names this near to their points need no line
TRIES = 3


def write_names(
    axes: Axes, places: np.ndarray, names: Sequence[str], others: np.ndarray | None = None, size: float | None = None
) -> list[str]:
    """Write a name at each of some places, without overlaps, and return those without room; the title counts them.

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
    """
    figure = axes.figure.canvas.figure
    if (layout := figure.get_layout_engine()) is not None:  # otherwise it moves the points later
        layout.execute(figure)
    axes.apply_aspect()
    size = size or (8.0 if len(names) <= 20 else 6.5)
    scale = 72 / float(axes.figure.dpi)  # from pixels to typographic points
    anchors, drawn = (
        scale * np.asarray(axes.transData.transform(points))
        for points in (places, places if others is None else others)
    )
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
    for text, anchor, box in zip(texts, anchors, boxes, strict=True):
        if np.isnan(box).any():
            text.remove()
            continue
        text.set_position((box[:2] + box[2:]) / 2 - anchor)
        end = np.clip(anchor, box[:2], box[2:]) - anchor
        if np.linalg.norm(end) > BESIDE:
            axes.annotate("", text.xy, end, arrowprops=arrow, **style)
    left_out = [name for name, box in zip(names, boxes, strict=True) if np.isnan(box).any()]
    if left_out:
        axes.set_title(f"{axes.get_title()}, no room for {len(left_out)} name{'s' * (len(left_out) > 1)}")
    return left_out


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
