"""Points in groups, whose distances stand in for those of systems where only statistics are tested."""

import numpy as np


def between(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def cloud(
    seed: int, sizes: tuple[int, ...] = (5, 5), shift: float = 0.0, n_dims: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of normal points in groups whose means are ``shift`` apart, and the groups."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    points = np.random.default_rng(seed).standard_normal((len(groups), n_dims))
    points[:, 0] += shift * groups
    return between(points), groups
