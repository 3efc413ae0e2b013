"""Many starts for each pair, in waves: the search for the highest top of <A, C B C^T>.

The landscape has local maxima. One start is built, and exact for B = Q A Q^T if S_A has distinct eigenvalues; the
others are Haar-random, of both determinants, and the same for every pair, so that a pair's result does not depend on
the other pairs. They come in waves: all starts of a wave climb some steps in single precision, the better ones climb
on, the best few to the top. A pair whose highest top was reached by too few climbs takes another wave, unless its bound
says that there is nothing higher. The highest tops end in double precision.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dsa_analysis import native
from dsa_analysis.certificate import CERTIFIED
from dsa_analysis.climb import (
    climb_all,
    one_by_one,
    ordered_conjugate,
    ordered_norm,
    ordered_product,
    ordered_sum,
    split,
)
from dsa_analysis.data import DataError

WAVE = 32  # starts climbed side by side
AGREE = 1e-5  # cosines this close are the same top
CONVERGED = 1e-6  # slope below which a gradient counts as vanished


class Search(NamedTuple):
    """How hard to look for the highest top of a pair."""

    # (Newton steps, conjugate-gradient steps in each, share of the starts that climbs on): early leaders mostly win
    rounds: tuple[tuple[int, int, float], ...]
    enough: int  # climbs that end at the same top
    small: int  # starts of operators up to n = 32, at most
    large: int  # starts beyond: a start at n = 50 costs a hundred times what it does at n = 10


# at n = 20 three climbs agree on a top that is not the highest in about 4 pairs of 100
TORCH = Search(((8, 5, 1 / 2), (8, 8, 1 / 4), (10, 8, 1 / 8), (100, 15, 1 / 8)), 4, 6 * WAVE, 2 * WAVE)
# ten times faster climbs pay for twice the starts and a later stop, which noisy operators and n >= 30 need
NATIVE = Search(((8, 5, 1 / 2), (8, 8, 1 / 2), (10, 8, 1 / 4), (100, 15, 1 / 4)), 6, 12 * WAVE, 8 * WAVE)


def search(device: torch.device) -> Search:
    """What is affordable on ``device``."""
    return NATIVE if native.available(device) else TORCH


class Prepared(NamedTuple):
    """What is known of each of N operators before any pair is looked at."""

    whole: Tensor  # (N, n, n) what the angle is taken of, unit norm
    core: Tensor  # (N, n, n) without trace, unit norm, in the planes of rotation
    planes: Tensor  # (N, n, n) those planes as columns: whole = share * planes core planes^T + trace part
    share: Tensor  # (N,) norm of the traceless part of ``whole``
    trace: Tensor  # (N,) its trace part: the cosine is share_a share_b <core_a, C core_b C^T> + trace_a trace_b
    axes: Tensor  # (N, n, n) eigenvectors of the symmetric part of ``core``

    def angle(self, i: Tensor, j: Tensor, cosine: Tensor) -> Tensor:
        """Angle between whole_i and C whole_j C^T where ``cosine`` is that between the cores."""
        whole = self.share[i] * self.share[j] * cosine + self.trace[i] * self.trace[j]
        return whole.clamp(-1, 1).arccos()


def prepare(operators: Tensor, remove_trace: bool, names: Sequence[str]) -> Prepared:
    """Compute once for each operator (N, n, n) what all its pairs need."""
    n = operators.shape[-1]
    eye = torch.eye(n, dtype=operators.dtype, device=operators.device)
    mean = ordered_sum(operators.diagonal(dim1=-2, dim2=-1)) / n
    traceless = operators - mean[:, None, None] * eye
    whole = traceless if remove_trace else operators
    scale, size = operators.abs().amax((-1, -2)), ordered_norm(traceless)
    # a multiple of the identity leaves rounding behind when its trace is taken away
    without_direction = (scale == 0) | ((size <= 1e-14 * n * scale) & remove_trace)
    if bool(without_direction.any()):
        which = int(without_direction.nonzero()[0])
        what = "zero" if scale[which] == 0 else "a multiple of the identity, and zero without its trace"
        name = names[which] if names else f"operator {which}"
        raise DataError(f"{name} is {what}: it has no direction, and so no angle to another")
    total = ordered_norm(whole)
    core = traceless / torch.where(size > 1e-14 * n * scale, size, torch.inf)[:, None, None]
    planes = _rotation_planes(split(core)[1])
    core = ordered_conjugate(planes.mT, core)
    return Prepared(
        whole=whole / total[:, None, None],
        core=core,
        planes=planes,
        share=size / total,
        trace=torch.zeros_like(mean) if remove_trace else mean * n**0.5 / total,
        axes=one_by_one(torch.linalg.eigh, split(core)[0])[1],
    )


class Waves(Sequence[Tensor]):
    """Random starts (W, n, n) of each wave, all but the built one; those of a wave are the same at any budget."""

    def __init__(self, n_starts: int, n: int, seed: int, like: Tensor) -> None:
        self._sizes = [min(WAVE, n_starts - begin) - (begin == 0) for begin in range(0, n_starts, WAVE)]
        self._made: list[Tensor] = []  # as far as they were asked for: most pairs need one or two
        self._generator, self._n, self._like = torch.Generator().manual_seed(seed), n, like

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]
        while len(self._made) <= number:
            wave = _haar(WAVE, self._n, self._generator, self._like)
            self._made.append(wave[not self._made :][: self._sizes[len(self._made)]])
        return self._made[number]


class Linear(NamedTuple):
    """A linear term of P pairs: the objective is share <core_i, C core_j C^T> + <matrix, C>."""

    share: Tensor  # (P,)
    matrix: Tensor  # (P, n, n), between the planes of i and j
    rest: Tensor  # (P,) what no C changes: the angle is the arc cosine of the objective and this
    starts: Tensor  # (P, k, n, n) orthogonal, built for the linear term

    def of(self, which: Tensor | slice) -> "Linear":
        """Those of some of the pairs."""
        return Linear(*(x[which] for x in self))


Solved = tuple[Tensor, Tensor, Tensor]  # C between the cores (P, n, n), agreement and slope left, both (P,)


def solve(
    prepared: Prepared, i: Tensor, j: Tensor, bound: Tensor, waves: Waves, group: str, linear: Linear | None = None
) -> list[Solved]:
    """Highest tops found of the pairs i, j; on a GPU whose memory does not suffice, one half after the other.

    Parameters
    ----------
    bound : (P,)
        What no <core_i, C core_j C^T> exceeds, or the objective of ``linear``.
    waves : Waves
        Random starts; the built ones come with the first wave.
    group : "O" or "SO"
    linear : Linear, optional
    """
    try:
        return [_solve(prepared, i, j, bound, waves, group, linear)]
    except torch.cuda.OutOfMemoryError:
        if len(i) == 1:
            raise
    half = len(i) // 2  # past the except clause, which holds on to the tensors of the failed attempt
    warnings.warn(f"{i.device} ran out of memory with {len(i)} pairs at once; going on with {half}", stacklevel=4)
    parts = (slice(half), slice(half, None))
    return [
        solved for k in parts for solved in solve(prepared, i[k], j[k], bound[k], waves, group, linear and linear.of(k))
    ]


def _solve(
    prepared: Prepared, i: Tensor, j: Tensor, bound: Tensor, waves: Waves, group: str, linear: Linear | None
) -> Solved:
    how = search(i.device)
    A, B = prepared.core[i], prepared.core[j]
    L = None
    if linear is not None:
        A, L = A * linear.share[:, None, None], linear.matrix
    built = _built_start(A, B, prepared.axes[i], prepared.axes[j], L)[:, None]
    if linear is not None:
        built = torch.cat([built, linear.starts], 1)
    # the starts are rotations between planes, which may be oriented either way themselves
    orientation = torch.linalg.det(prepared.planes[i]) * torch.linalg.det(prepared.planes[j])
    n_best = min(2, 1 + len(waves[0]))
    best, agreement = A.new_empty(len(i), n_best, *A.shape[1:]), A.new_empty(len(i))
    left = torch.arange(len(i), device=A.device)
    tops, heights = A.new_empty(len(i), 0, *A.shape[1:]), A.new_empty(len(i), 0)
    for number in range(len(waves)):
        C = waves[number].expand(len(left), -1, -1, -1)
        C = C if number else torch.cat([built, C], 1)
        if group == "SO" and (C.shape[-1] % 2 == 0 or L is not None):  # else C and -C have the same effect
            wrong = torch.linalg.det(C) * orientation[left, None] < 0
            C = torch.where(wrong[..., None, None], _mirror(C), C)
        n_starts = C.shape[1]
        for n_steps, n_inner, share in how.rounds:
            keep = min(n_starts, max(4, round(share * n_starts)))
            C, f, _ = climb_all(
                A[left], B[left], C, keep, torch.float32, None if L is None else L[left],
                n_steps=n_steps, n_inner=n_inner, tolerance=1e-4,
            )  # fmt: skip
        tops, heights = torch.cat([tops, C.to(A)], 1), torch.cat([heights, f.to(A)], 1)
        reached = (heights.amax(1, keepdim=True) - heights < AGREE).sum(1)
        done = (reached >= how.enough) | (number == len(waves) - 1)
        if not bool(done.all()):
            done |= _certain(
                A[left], B[left], tops, heights, bound[left], prepared, i[left], j[left], linear and linear.of(left)
            )
        highest = heights[done].topk(n_best, 1)[1]
        best[left[done]] = tops[done].gather(1, highest[..., None, None].expand(-1, -1, *A.shape[1:]))
        agreement[left[done]] = reached[done].to(A) / heights.shape[1]
        left, tops, heights = (x[~done] for x in (left, tops, heights))
        if not len(left):
            break
    C, _, slope = climb_all(A, B, best, 1, A.dtype, L, n_steps=100, n_inner=25, tolerance=1e-9)
    return C[:, 0], agreement, slope[:, 0]


def _certain(
    A: Tensor,
    B: Tensor,
    tops: Tensor,
    heights: Tensor,
    bound: Tensor,
    prepared: Prepared,
    i: Tensor,
    j: Tensor,
    linear: Linear | None,
) -> Tensor:
    """Whether the highest of ``tops`` (P, K, n, n) is the highest there is: its angle is within 1e-6 of the bound."""
    height, highest = heights.max(1)
    certain = bound - height < AGREE  # single precision cannot tell more
    near = certain.nonzero()[:, 0]
    if len(near):
        C = tops[near, highest[near]][:, None]
        L = None if linear is None else linear.matrix[near]
        _, f, _ = climb_all(A[near], B[near], C, 1, A.dtype, L, n_steps=100, n_inner=25, tolerance=1e-9)
        found, least = (
            prepared.angle(i[near], j[near], height)
            if linear is None
            else (height + linear.rest[near]).clamp(-1, 1).arccos()
            for height in (f[:, 0], bound[near])
        )
        certain[near] = found - least < CERTIFIED
    return certain


def _built_start(A: Tensor, B: Tensor, axes_A: Tensor, axes_B: Tensor, linear: Tensor | None = None) -> Tensor:
    """C = E_A diag(e) E_B^T, E eigenvectors of symmetric parts; exact for B = Q A Q^T with distinct eigenvalues there.

    The signs e maximise e^T W e, W = (E_A^T A E_A) o (E_B^T B E_B) without diagonal, by its leading eigenvector and two
    sweeps. For a conjugate pair W = D |W| D with D the signs sought, and Perron-Frobenius gives them; the sweeps settle
    what the eigenvector leaves open. A linear term L adds l^T e, l the diagonal of E_A^T L E_B: one more row and column
    of W, l / 2, whose sign is held at 1.
    """
    W = split(ordered_conjugate(axes_A.mT, A) * ordered_conjugate(axes_B.mT, B))[0]
    W = W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1))
    n = W.shape[-1]
    if linear is not None:
        half = ordered_product(ordered_product(axes_A.mT, linear), axes_B).diagonal(dim1=-2, dim2=-1)[..., None] / 2
        W = torch.cat([torch.cat([W, half], -1), torch.cat([half.mT, torch.zeros_like(half[..., :1, :])], -1)], -2)
    signs = torch.where(one_by_one(torch.linalg.eigh, W)[1][..., -1] < 0, -1.0, 1.0).to(W)
    if linear is not None:
        signs = signs * signs[:, -1:]
    for i in 2 * list(range(n)):
        signs[:, i] = torch.where((W[:, i] * signs).sum(-1) < 0, -1.0, 1.0)
    return ordered_product(axes_A * signs[:, None, :n], axes_B.mT)


def _haar(n_matrices: int, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniformly random orthogonal matrices (n_matrices, n, n), the same on every device."""
    Q, R = torch.linalg.qr(torch.randn(n_matrices, n, n, generator=generator, dtype=torch.float64))
    return (Q * torch.sgn(R.diagonal(dim1=-2, dim2=-1))[..., None, :]).to(like)


def _mirror(C: Tensor) -> Tensor:
    """C with its first column turned round: the other determinant."""
    return torch.cat([-C[..., :1], C[..., 1:]], -1)


def _rotation_planes(K: Tensor) -> Tensor:
    """Orthonormal bases (N, n, n) in which skew K is [[0, -w], [w, 0]] with w diagonal and descending (Youla's form).

    Columns are (x_1 .. x_h, y_1 .. y_h), for odd n followed by the axis that K does not move.
    """
    n, h = K.shape[-1], K.shape[-1] // 2
    U = one_by_one(torch.linalg.eigh, torch.complex(torch.zeros_like(K), K))[1].flip(-1)
    columns = [U[..., :h].real, -U[..., :h].imag]
    if n % 2:  # real up to a phase
        kernel = U[..., h : h + 1]
        columns.append((kernel * (kernel**2).sum(-2, keepdim=True).conj().sqrt()).real)
    Q, R = one_by_one(
        torch.linalg.qr, torch.cat(columns, -1)
    )  # planes with w near 0 are arbitrary and may come out skewed
    return Q * torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q)[..., None, :]
