"""Joins motifs into sequences of known composition, and simulates learning in two ways.

A motif is a short trajectory of one dynamical system: a line, a fixed point, chaos, a limit cycle. A sequence consists
of several motifs, one after the other. With p_j the j-th piece of n_j samples, p_j(0) its start and |p_j| its size,

    x(t) = p_1(t) / |p_1|,    then    x(t) = x(end) + (p_j(t - start) - p_j(0)) / |p_j|,

so that every piece has unit size and starts where the previous one ended (Guilhot et al. 2024, arXiv 2410.24070,
composed attractors; Driscoll et al. 2024, Nat Neurosci 27, 1349-1363, shared dynamical motifs).

Learning is simulated in two ways. `add_noise` models noise that shrinks: y = sqrt(1 - s^2) x + s n, where n has the
standard deviation of each channel. It keeps the variance and only changes the fraction of it that is signal. `grown`
models structure that grows: parameters move from those of one motif to those of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count
from dsa_analysis.systems import SYSTEMS, simulate

LINE = "line"  # constant velocity; each trial has a random direction around the first axis
LINE_PARAMETERS = {"spread": 0.3}


@dataclass(frozen=True)
class Motif:
    """A named system with its parameters.

    Attributes
    ----------
    system : "line", or one of `systems.SYSTEMS`
    dt : float > 0, in model time
        Sampling interval. It has no effect on a line, which is scaled to unit size.
    parameters : mapping from name to values
        Recordings use the values in turn. Parameters that are not named keep the system's default. A line has
        ``spread``, the standard deviation of the components of its direction around (1, 0, ...), before the direction
        is scaled to unit length.
    """

    system: str
    dt: float
    parameters: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        check_choice("system", self.system, (LINE, *SYSTEMS))
        if not self.dt > 0:
            raise DataError(f"dt = {self.dt!r} is not a positive time")
        for name, values in self.parameters.items():
            check_choice(f"a name in parameters of {self.system}", name, self.defaults)
            if not len(values):
                raise DataError(f"parameters: {name} of {self.system} is empty; at least one value is needed")

    @property
    def defaults(self) -> Mapping[str, float]:
        return LINE_PARAMETERS if self.system == LINE else SYSTEMS[self.system].parameters

    @property
    def n_dims(self) -> int | None:
        """Channels of a recording; None for a line, which has as many as the motifs it is joined with."""
        return None if self.system == LINE else SYSTEMS[self.system].n_dims

    def values(self, n_recordings: int) -> dict[str, Tensor]:
        """Values of every parameter, (n_recordings,) each: recordings use the given values in turn."""
        given = {name: tuple(self.parameters.get(name, (default,))) for name, default in self.defaults.items()}
        turns = range(n_recordings)
        return {
            name: torch.tensor([values[k % len(values)] for k in turns], dtype=torch.float64)
            for name, values in given.items()
        }


@dataclass(frozen=True)
class Sequences:
    """Sequences of motifs, as trajectories.

    Attributes
    ----------
    trajectories : (n_seeds, n_sequences, n_trials, n_times, n_channels) float64
    orders : n_sequences tuples
        Names of the motifs, first to last.
    borders : tuple of (start, stop), one for each piece
        Samples of the piece in every trial, ``stop`` excluded.
    """

    trajectories: Tensor
    orders: tuple[tuple[str, ...], ...]
    borders: tuple[tuple[int, int], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Such as "line > chaos > limit_cycle"; recordings of the same order are numbered " #1", " #2"."""
        labels = []
        for place, order in enumerate(self.orders):
            repeat = f" #{self.orders[: place + 1].count(order)}" if self.orders.count(order) > 1 else ""
            labels.append(" > ".join(order) + repeat)
        return tuple(labels)

    def systems(self, seed: int) -> dict[str, Tensor]:
        """A mapping from label to (n_trials, n_times, n_channels); ``seed`` is an index into the seeds."""
        return dict(zip(self.labels, self.trajectories[seed], strict=True))


def common_dims(motifs: Mapping[str, Motif]) -> int:
    """Number of channels that all motifs of a set have; 3 if all are lines.

    Raises
    ------
    DataError
        Systems with different numbers of dimensions, which cannot be joined.
    """
    found = {name: motif.n_dims for name, motif in motifs.items() if motif.n_dims is not None}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {n_dims}" for name, n_dims in found.items())
        raise DataError(f"motifs with different numbers of dimensions cannot be joined: {listed} (a line may have any)")
    return next(iter(found.values()), 3)


def all_orders(motifs: Sequence[str], n_pieces: int, repeats: bool = False) -> list[tuple[str, ...]]:
    """All ordered tuples of ``n_pieces`` of the motifs; with ``repeats`` a motif may occur more than once.

    >>> all_orders(["a", "b"], 2)
    [('a', 'b'), ('b', 'a')]
    """
    check_count("n_pieces", n_pieces)
    names = list(motifs)
    if len(set(names)) < len(names):
        raise DataError(f"motifs has a name twice: {', '.join(names)}")
    if not repeats and n_pieces > len(names):
        raise DataError(
            f"{n_pieces} pieces without repeats need {n_pieces} motifs, but there are {len(names)}: "
            f"{', '.join(names)}; give more motifs, use fewer pieces, or turn repeats on"
        )
    return list(product(names, repeat=n_pieces) if repeats else permutations(names, n_pieces))


def record_motif(
    motif: Motif,
    n_recordings: int,
    n_trials: int,
    n_times: int,
    generators: Sequence[torch.Generator],
    *,
    n_dims: int = 3,
    device: str | torch.device | None = None,
) -> Tensor:
    """Simulate recordings of one motif for each of several seeds.

    Parameters
    ----------
    motif : Motif
    n_recordings, n_trials, n_times : int >= 1
        Recordings for each seed, trials of each, and samples of each trial. Recordings use the values of each parameter
        in turn.
    generators : one torch.Generator for each seed
        Each draws the starts (for a line, the directions) of its own recordings, so that these do not depend on the
        other seeds.
    n_dims : int >= 1
        Number of dimensions of a line. Other systems have their own.
    device : str or torch.device, optional
        Device of the result, by default the CPU.

    Returns
    -------
    Tensor, (n_seeds, n_recordings, n_trials, n_times, n_dims) float64
    """
    check_count("n_recordings", n_recordings)
    check_count("n_trials", n_trials)
    check_count("n_times", n_times)
    device = as_device(device) or torch.device("cpu")
    values = {name: value[:, None].to(device) for name, value in motif.values(n_recordings).items()}  # beside trials
    shape = (n_recordings, n_trials, motif.n_dims or n_dims)
    if motif.system == LINE:
        drawn = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators]).to(device)
        axis = torch.eye(shape[-1], dtype=torch.float64, device=device)[0]
        directions = torch.nn.functional.normalize(axis + values["spread"][..., None] * drawn, dim=-1)
        times = motif.dt * torch.arange(n_times, dtype=torch.float64, device=device)
        return directions[..., None, :] * times[:, None]  # (seed, recording, trial, time, dim)
    system = SYSTEMS[motif.system]
    starts = torch.stack([torch.rand(shape, generator=g, dtype=torch.float64) for g in generators]).to(device)
    return simulate(
        lambda state: system.vector_field(state, **values),
        system.low + (system.high - system.low) * starts,
        motif.dt,
        n_times,
    )


def compose(
    motifs: Mapping[str, Motif],
    orders: Sequence[Sequence[str]],
    n_times: Sequence[int],
    *,
    n_trials: int,
    seeds: Sequence[int],
    common_starts: bool = False,
    device: str | torch.device | None = None,
) -> Sequences:
    """Join motifs into sequences, for several seeds. Every piece has unit size and starts where the previous one ended.

    Parameters
    ----------
    motifs : mapping from name to Motif
    orders : sequences of names of motifs
        One or more, each of ``len(n_times)`` names.
    n_times : sequence of int >= 2
        Samples of each piece.
    n_trials : int >= 1
        Trials of each sequence. Each piece of each trial has its own start in the coordinates of its motif.
    seeds : sequence of int >= 0
        One set of sequences for each seed. It does not depend on the other seeds.
    common_starts : bool
        Trial k of a motif is the same trajectory in every sequence and position. Sequences then match sample by sample,
        as measures of static representations need it. Otherwise each has its own.
    device : str or torch.device, optional
        Device of the result, by default the CPU.

    Returns
    -------
    Sequences

    Raises
    ------
    DataError
        Unknown motifs, systems with different numbers of dimensions, a sequence of another length than ``n_times``, or
        no seeds.
    """
    chosen, n_times = tuple(tuple(order) for order in orders), tuple(n_times)
    if not len(seeds):
        raise DataError("seeds is empty; at least one is needed")
    if not chosen or not n_times:
        raise DataError("orders or n_times is empty; at least one sequence of at least one piece is needed")
    for length in n_times:
        check_count("n_times", length, 2)
    for order in chosen:
        if len(order) != len(n_times):
            raise DataError(f"sequence {' > '.join(order)} has {len(order)} motifs for {len(n_times)} pieces")
        for name in order:
            check_choice("motif", name, motifs)
    n_dims = common_dims(motifs)
    generators = [as_generator(seed, None) for seed in seeds]

    places: dict[str, list[tuple[int, int]]] = {}  # motif -> (sequence, piece) of each occurrence
    for i, order in enumerate(chosen):
        for j, name in enumerate(order):
            places.setdefault(name, []).append((i, j))
    pieces: dict[tuple[int, int], Tensor] = {}  # (sequence, piece) -> (seed, trial, time, channel)
    for name in (name for name in motifs if name in places):
        n_recordings = 1 if common_starts else len(places[name])
        stretches = record_motif(
            motifs[name], n_recordings, n_trials, max(n_times), generators, n_dims=n_dims, device=device
        )
        for k, (i, j) in enumerate(places[name]):
            pieces[i, j] = unit_size(stretches[:, k % n_recordings, :, : n_times[j]])

    joined = [_join([pieces[i, j] for j in range(len(n_times))]) for i in range(len(chosen))]
    stops = np.cumsum(n_times).tolist()
    borders = tuple(zip([0, *stops[:-1]], stops, strict=True))
    return Sequences(torch.stack(joined, 1), chosen, borders)


def unit_size(piece: Tensor) -> Tensor:
    """Divide a piece (..., n_trials, n_times, n_channels) by its root mean square distance from its trials' means.

    One factor for all trials and channels preserves the relations between trials. Each trial has its own mean, so that
    scattered starts do not count as size.
    """
    spread = piece - piece.mean(-2, keepdim=True)
    size = spread.square().sum(-1).mean((-2, -1)).sqrt()
    if not bool((size > 0).all()):
        raise DataError("a piece is constant, so it cannot be scaled to unit size; choose other parameters")
    return piece / size[..., None, None, None]


def _join(pieces: Sequence[Tensor]) -> Tensor:
    """Join pieces (..., n_times_j, n_channels), each shifted to start at the last sample of the previous one."""
    joined = list(pieces[:1])
    for piece in pieces[1:]:
        joined.append(joined[-1][..., -1:, :] + (piece - piece[..., :1, :]))
    return torch.cat(joined, -2)


def shared_motifs(orders: Sequence[Sequence[str]], others: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """Number of motifs that two sequences have in common, in any position: (n, n), or (n, l) with ``others``.

    A motif that occurs twice in both counts twice.
    """
    names = sorted({name for order in [*orders, *(others or ())] for name in order})
    counts, other_counts = (
        np.array([[list(order).count(name) for name in names] for order in group])
        for group in (orders, others or orders)
    )
    return np.minimum(counts[:, None], other_counts[None]).sum(-1)


def shared_positions(orders: Sequence[Sequence[str]], others: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """Number of positions in which two sequences have the same motif: (n, n), or (n, l) with ``others``."""
    first, second = (np.array(group) for group in (orders, others or orders))
    return (first[:, None] == second[None]).sum(-1)


def add_noise(
    trajectories: Tensor, strength: float, *, seed: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Add white noise and keep the variance: y = sqrt(1 - s^2) x + s n, with a fraction s^2 of the variance as noise.

    Parameters
    ----------
    trajectories : Tensor, (..., n_trials, n_times, n_channels)
        x. Leading axes before the trials are different systems, and n has the standard deviation of each channel of
        each system.
    strength : float in [0, 1)
        s; 0 returns x. The signal-to-noise ratio is (1 - s^2) / s^2: 10 dB at 0.3, 0 dB at 0.71, -6 dB at 0.9.
    seed, generator : int >= 0, or torch.Generator on the CPU
        Source of n. Give exactly one of the two.

    Returns
    -------
    Tensor, same shape

    Raises
    ------
    DataError
        A strength outside [0, 1), or not exactly one of seed and generator.
    """
    if isinstance(strength, bool) or not 0 <= strength < 1:
        raise DataError(f"strength = {strength!r} is not in [0, 1): 0 is no noise, 1 would be noise alone")
    generator = as_generator(seed, generator)
    deviation = trajectories.std((-3, -2), correction=0, keepdim=True)
    noise = torch.randn(trajectories.shape, generator=generator, dtype=trajectories.dtype).to(trajectories.device)
    return (1 - strength**2) ** 0.5 * trajectories + strength * deviation * noise


def grown(start: Motif, end: Motif, share: float) -> Motif:
    """A motif between two others: parameters and dt are (1 - share) start + share end.

    Parameters
    ----------
    start, end : Motif
        Of the same system. A parameter that one of them does not name has its default there. If a parameter has several
        values, value k moves from value k of ``start`` to value k of ``end``.
    share : float in [0, 1]
        0 is the start, 1 the end.

    Returns
    -------
    Motif

    Raises
    ------
    DataError
        Motifs of different systems, or a share outside [0, 1].
    """
    if start.system != end.system:
        raise DataError(f"start is a {start.system} and end is a {end.system}; both must be of the same system")
    if isinstance(share, bool) or not 0 <= share <= 1:
        raise DataError(f"share = {share!r} is not in [0, 1]: 0 is the start, 1 the end")
    n_values = max(len(values) for motif in (start, end) for values in [*motif.parameters.values(), (0,)])
    first, last = start.values(n_values), end.values(n_values)
    parameters = {name: tuple(((1 - share) * first[name] + share * last[name]).tolist()) for name in first}
    return Motif(start.system, (1 - share) * start.dt + share * end.dt, parameters)
