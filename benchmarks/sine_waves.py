"""python -m benchmarks.sine_waves [--seeds 0 1 2] [--cells LeakyRNN Tanh GRU]

Networks that make sine waves of the frequency that a constant input names (Sussillo and Barak 2013, Fig. 5): one limit
cycle for each frequency. Run on under the input alone, from states of trials and from states beside them, each network
should reach its cycle; the table says at which frequency it turns, and which frequency operators find in its activity.

Networks are stored under results/benchmarks/sine_waves: what is there already is read, and what was cut short goes on.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.peer import ROOT
from dsa_analysis import DataError, fit_operator
from dsa_analysis.spectra import frequencies
from multitask import NetworkParameters, Run, SineWave, TrainingParameters, train

FOLDER = ROOT / "results" / "benchmarks" / "sine_waves"
CELLS = ("LeakyRNN", "Tanh", "GRU")
TASK = SineWave()
TRAINING = TrainingParameters(
    n_steps=2000, batch_size=64, learning_rate=0.003, schedule="cosine", clip="norm", loss_type="mean_square",
    evaluate_every=500, n_test_batches=2,
)  # fmt: skip
DT, TAU, SIZE = 20.0, 40.0, 64  # ms, ms, units
PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the tested frequencies in the range
AFTER, SHOWN = 200, 200  # time steps until the cycle is reached, and of it
ASIDE = 0.1  # standard deviation of perturbed states
N_DELAYS, RANK = 20, 9  # of the operators, at most: four pairs
LASTING = 0.98  # modulus of eigenvalues
STILL = 0.1  # standard deviation of an output that has come to rest


def learn(cell: str, seed: int) -> Run:
    network = NetworkParameters(n_rnn=SIZE, rnn_type=cell, activation="tanh", dt=DT, tau=TAU, sigma_rec=0.0,
                                w_rec_init="randgauss", **TASK.sizes)  # fmt: skip
    return train([TASK], network, TRAINING, run_folder=FOLDER / f"{cell}_{seed}", seed=seed, progress=False)


def cycles(run: Run, n_starts: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """States (frequency, start, time, unit), outputs (.., time) on the cycle, and the frequencies asked for."""
    asked = torch.tensor([TASK.frequencies[0] + p * (TASK.frequencies[1] - TASK.frequencies[0]) for p in PLACES])
    inputs = (0.25 + torch.tensor(PLACES))[:, None, None].expand(-1, round(TASK.duration / DT), 1)
    with torch.no_grad():
        states = run.network.states(inputs)[0, :, -1]
        noise = ASIDE * torch.randn(n_starts, *states.shape, generator=torch.Generator().manual_seed(0))
        hidden, u = (states + noise).flatten(0, 1)[None], inputs[:, 0].repeat(n_starts, 1)[None]
        path = []
        for t in range(AFTER + SHOWN):
            hidden = run.network.step(hidden, u)
            path += [hidden[0]] if t >= AFTER else []
        x = torch.stack(path, 1).unflatten(0, (n_starts, len(PLACES))).transpose(0, 1)
        weights = run.network.weights
        return x, (x @ weights["w_out"][0] + weights["b_out"][0])[..., 0], asked


def turning(waves: Tensor) -> Tensor:
    """Frequency in Hz of waves (.., time), by the phase of their analytic signal."""
    from scipy.signal import hilbert

    phase = np.unwrap(np.angle(hilbert((waves - waves.mean(-1, keepdim=True)).double().numpy(), axis=-1)), axis=-1)
    middle = slice(SHOWN // 8, -SHOWN // 8)  # the ends of the transform are not reliable
    times = DT / 1000 * np.arange(waves.shape[-1])[middle]
    slopes = np.polyfit(times, phase[..., middle].reshape(-1, len(times)).T, 1)[0]
    return torch.from_numpy(slopes / (2 * np.pi)).reshape(waves.shape[:-1])


def modes(x: Tensor) -> Tensor:
    """Frequencies in Hz of the lasting modes of the operator of trials (start, time, unit).

    The output need not turn as often as the states: it may read out a harmonic of their cycle.
    """
    for rank in range(RANK, 0, -2):
        try:
            z = torch.linalg.eigvals(fit_operator(x.double(), n_delays=N_DELAYS, rank=rank).matrix)
            break
        except DataError:  # a cycle with fewer harmonics
            continue
    return frequencies(z[(z.imag > 1e-6) & (z.abs() > LASTING)], DT / 1000)


def answers(cells: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """A line for each cell; errors in % over frequencies and seeds, where there is a cycle."""
    yield (
        "| cell | units | n | CPU s a network | frequencies with a cycle | frequency against that asked, %: median, "
        "largest | starts that reach the same cycle | nearest mode of the operator, %: median, largest |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for cell in cells:
        own, fitted, alike, seconds = [], [], [], []
        for seed in seeds:
            run = learn(cell, seed)
            seconds.append(run.log["cpu_seconds"].max())
            for states, outputs, asked in zip(*cycles(run), strict=True):
                if outputs.std(-1).median() < STILL:
                    continue
                found = turning(outputs)
                truth = found.median()
                own.append(100 * abs(truth - asked) / asked)
                alike.append(((found - truth).abs() < 0.02 * truth).double().mean())
                fitted.append(100 * (modes(states) - truth).abs().amin() / truth)
        n = len(seeds) * len(PLACES)
        errors = [f"{e.median():.2f}, {e.max():.2f}" for e in (torch.stack(own), torch.stack(fitted))]
        yield (
            f"| {cell} | {SIZE} | {len(seeds)} | {' '.join(f'{s:.0f}' for s in seconds)} | {len(own)} of {n} "
            f"| {errors[0]} | {100 * float(torch.stack(alike).mean()):.0f} % | {errors[1]} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sine_waves", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in answers(arguments.cells, arguments.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
