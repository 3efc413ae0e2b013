"""Motifs joined into sequences of known composition, and two kinds of simulated learning.

A motif is a short stretch of one dynamical system: a line, a fixed point, chaos, a limit cycle. A sequence runs several
one after the other. With p_j the j-th piece, p_j(0) its start and |p_j| its size, all pieces n_j samples long,

    x(t) = p_1(t) / |p_1|,    then    x(t) = x(end) + (p_j(t - start) - p_j(0)) / |p_j|,

so that every piece has unit size on its own and starts where the last one ended (Guilhot et al. 2024, arXiv 2410.24070,
composed attractors; Driscoll et al. 2024, Nat Neurosci 27, 1349-1363, shared dynamical motifs).

Learning is simulated by noise that shrinks, y = sqrt(1 - s^2) x + s n with n of each channel's own standard deviation,
which keeps the variance and changes nothing but the signal's share of it; or by structure that grows, parameters that
move from those of one motif to those of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count
from dsa_analysis.systems import SYSTEMS, simulate

LINE = "line"  # straight at constant speed; each trial draws its direction around the first axis
LINE_PARAMETERS = {"spread": 0.3}


@dataclass(frozen=True)
class Motif:
    """A named system with its parameters.

    Attributes
    ----------
    system : "line", or one of `systems.SYSTEMS`
    dt : float > 0, model time
        Spacing of the samples. A line has unit size at any.
    parameters : mapping from name to values
        Recordings take the values in turn; what is not named keeps the system's default. A line has ``spread``, the
        standard deviation of the direction's components around (1, 0, ...) before it is brought to unit length.
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
        """Channels of a recording; a line (None) has as many as its company."""
        return None if self.system == LINE else SYSTEMS[self.system].n_dims

    def values(self, n_recordings: int) -> dict[str, Tensor]:
        """Every parameter, (n_recordings,): value k modulo their number for recording k."""
        given = {name: tuple(self.parameters.get(name, (default,))) for name, default in self.defaults.items()}
        turns = range(n_recordings)
        return {
            name: torch.tensor([values[k % len(values)] for k in turns], dtype=torch.float64)
            for name, values in given.items()
        }


@dataclass(frozen=True)
class Sequences:
    """Joined motifs.

    Attributes
    ----------
    trajectories : (n_seeds, n_sequences, n_trials, n_times, n_channels) float64
    orders : n_sequences tuples
        Names of the motifs, first to last.
    borders : one (start, stop) a piece
        Samples of each piece in every trial.
    """

    trajectories: Tensor
    orders: tuple[tuple[str, ...], ...]
    borders: tuple[tuple[int, int], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Such as "line > chaos > limit_cycle", with " #1", " #2" for the recordings of an order that comes again."""
        labels = []
        for place, order in enumerate(self.orders):
            repeat = f" #{self.orders[: place + 1].count(order)}" if self.orders.count(order) > 1 else ""
            labels.append(" > ".join(order) + repeat)
        return tuple(labels)

    def systems(self, seed: int) -> dict[str, Tensor]:
        """Label -> (n_trials, n_times, n_channels), of the seed in that place."""
        return dict(zip(self.labels, self.trajectories[seed], strict=True))


def common_dims(motifs: Mapping[str, Motif]) -> int:
    """Channels that all motifs of a set share, 3 where all are lines.

    Raises
    ------
    DataError
        Systems of unequal dimensions, which cannot be joined.
    """
    found = {name: motif.n_dims for name, motif in motifs.items() if motif.n_dims is not None}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {n_dims}" for name, n_dims in found.items())
        raise DataError(f"motifs of unequal dimensions cannot be joined: {listed}; lines follow the others")
    return next(iter(found.values()), 3)


def all_orders(motifs: Sequence[str], n_pieces: int, repeats: bool = False) -> list[tuple[str, ...]]:
    """All ordered tuples of ``n_pieces`` of the motifs; with ``repeats`` a motif may come more than once.

    >>> all_orders(["a", "b"], 2)
    [('a', 'b'), ('b', 'a')]
    """
    check_count("n_pieces", n_pieces)
    names = list(motifs)
    if len(set(names)) < len(names):
        raise DataError(f"motifs has a name twice: {', '.join(names)}")
    if not repeats and n_pieces > len(names):
        raise DataError(
            f"{n_pieces} pieces need as many motifs where repeats are off, but there are {len(names)}: "
            f"{', '.join(names)}; name more motifs, take fewer pieces, or turn repeats on"
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
    """Recordings of one motif for each of several seeds: (n_seeds, n_recordings, n_trials, n_times, n_dims), float64.

    Parameters
    ----------
    motif : Motif
    n_recordings : int >= 1
        Recording k takes the parameters' value k modulo their number.
    generators : one torch.Generator a seed
        Each draws the starts (directions of a line) of its own recordings, which so do not depend on the other seeds.
    n_dims : int
        Of a line; other systems have their own.
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
    """Sequences of motifs for several seeds, every piece of unit size and beginning where the last one ended.

    Parameters
    ----------
    motifs : mapping from name to Motif
    orders : names of the motifs of each sequence
        One or more, all of ``len(n_times)`` motifs.
    n_times : samples of each piece
    n_trials : int >= 1
        Of each sequence; each piece of each trial starts anew in its motif's own coordinates.
    seeds : ints
        One set of sequences for each, the same whatever the other seeds are.
    common_starts : bool
        Trial k of a motif is the same stretch in every sequence and place, in place of one of its own. Only then do
        sequences match sample by sample, as measures of static representations want it.

    Raises
    ------
    DataError
        Unknown motifs, systems of unequal dimensions, sequences of another length than ``n_times``, no seeds.
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

    places: dict[str, list[tuple[int, int]]] = {}  # motif -> (sequence, piece) wherever it comes
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
    """The piece (..., n_trials, n_times, n_channels) over one factor: its root mean square distance from trials' means.

    One factor for all trials and channels keeps what the motif's trials have in common; a mean of its own for each
    trial keeps scattered starts from counting as size.
    """
    spread = piece - piece.mean(-2, keepdim=True)
    size = spread.square().sum(-1).mean((-2, -1)).sqrt()
    if not bool((size > 0).all()):
        raise DataError("a piece does not move: it has no size to be brought to one; choose other parameters")
    return piece / size[..., None, None, None]


def _join(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces (..., n_times_j, n_channels) one after the other, each moved to begin at the last sample of the last."""
    joined = list(pieces[:1])
    for piece in pieces[1:]:
        joined.append(joined[-1][..., -1:, :] + (piece - piece[..., :1, :]))
    return torch.cat(joined, -2)


def shared_motifs(orders: Sequence[Sequence[str]], others: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """How many motifs each two sequences have in common, wherever they stand: (n, n), or (n, l) with ``others``.

    A motif that comes twice in both counts twice.
    """
    names = sorted({name for order in [*orders, *(others or ())] for name in order})
    counts, other_counts = (
        np.array([[list(order).count(name) for name in names] for order in group])
        for group in (orders, others or orders)
    )
    return np.minimum(counts[:, None], other_counts[None]).sum(-1)


def shared_positions(orders: Sequence[Sequence[str]], others: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """In how many places each two sequences have the same motif: (n, n), or (n, l) with ``others``."""
    first, second = (np.array(group) for group in (orders, others or orders))
    return (first[:, None] == second[None]).sum(-1)


def add_noise(
    trajectories: Tensor, strength: float, *, seed: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """y = sqrt(1 - s^2) x + s n: white noise takes the share s^2 of each channel's variance.

    Parameters
    ----------
    trajectories : (..., n_trials, n_times, n_channels)
        x. Anything before the trials is a system of its own.
    strength : float in [0, 1)
        s; 0 gives x back. The signal-to-noise ratio is (1 - s^2) / s^2, 10 dB at .3, 0 dB at .71, -6 dB at .9.
    seed, generator
        Where n comes from: exactly one of them.
    """
    if isinstance(strength, bool) or not 0 <= strength < 1:
        raise DataError(f"strength = {strength!r} is not in [0, 1): 0 is no noise, 1 would leave nothing else")
    generator = as_generator(seed, generator)
    deviation = trajectories.std((-3, -2), correction=0, keepdim=True)
    noise = torch.randn(trajectories.shape, generator=generator, dtype=trajectories.dtype).to(trajectories.device)
    return (1 - strength**2) ** 0.5 * trajectories + strength * deviation * noise


def grown(start: Motif, end: Motif, share: float) -> Motif:
    """The motif on its way: parameters and dt are (1 - share) start + share end, with share in [0, 1].

    Both are of one system; a parameter that one of them leaves out has its default there. Values taken in turn move in
    turn.
    """
    if start.system != end.system:
        raise DataError(f"a {start.system} does not grow into a {end.system}: start and end are of one system")
    if isinstance(share, bool) or not 0 <= share <= 1:
        raise DataError(f"share = {share!r} is not in [0, 1]: 0 is the start, 1 the end")
    n_values = max(len(values) for motif in (start, end) for values in [*motif.parameters.values(), (0,)])
    first, last = start.values(n_values), end.values(n_values)
    parameters = {name: tuple(((1 - share) * first[name] + share * last[name]).tolist()) for name in first}
    return Motif(start.system, (1 - share) * start.dt + share * end.dt, parameters)
