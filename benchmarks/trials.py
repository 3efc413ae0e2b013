"""Making trials of the twenty tasks: time for a step of a trial, and share of a training step."""

import time
from collections.abc import Iterator

import torch

from benchmarks.measure import measured
from benchmarks.peer import NEUROGYM, Worker
from benchmarks.table import Row
from benchmarks.training_step import Hand, problem
from multitask import RULES, LeakyRNN, NetworkParameters, generate_trials

PEER = f"{NEUROGYM}, new_trial"
N_TRIALS, DT = 64, 20.0


def cases(quick: bool) -> list[int]:
    """Repeats."""
    return [2] if quick else [5]


def make_all(seed: int) -> tuple[float, int]:
    """CPU seconds and trial-steps of one batch of every rule, with noise on all channels."""
    generator, steps = torch.Generator().manual_seed(seed), 0
    start = time.process_time()
    for rule in RULES:
        batch = generate_trials(rule, N_TRIALS, dt=DT, generator=generator)
        steps += batch.n_trials * batch.n_times
    return time.process_time() - start, steps


def run(chosen: list[int]) -> Iterator[list[Row]]:
    """Ours and the peer in turn; then batches and training steps in turn."""
    torch.set_num_threads(1)
    make_all(0)  # the first calls load libraries
    trainer = Hand(LeakyRNN(NetworkParameters(n_rnn=128), 4))
    inputs, targets, mask = problem(n_trials=N_TRIALS, n_times=100)
    noise = torch.Generator().manual_seed(0)
    trainer.step(inputs, targets, mask, noise)
    for n_repeats in chosen:
        ours, theirs, batches, steps = [], [], [], []
        with Worker(NEUROGYM) as peer:
            peer("trials", n_trials=2, dt=DT, seed=0)
            for repeat in range(n_repeats):
                seconds, n_steps = make_all(repeat)
                ours.append(1e6 * seconds / n_steps)
                batches.append(1e3 * seconds / len(RULES))
                answer = peer("trials", n_trials=N_TRIALS, dt=DT, seed=repeat)
                theirs.append(float(1e6 * answer["seconds"].sum() / answer["steps"].sum()))
                steps.append(1e3 * measured(trainer.step, inputs, targets, mask, noise).seconds)
        yield [
            Row(
                "trials",
                f"twenty tasks, batches of {N_TRIALS}, dt {DT:g} ms",
                "us a trial-step",
                ours,
                theirs,
                3,
                "noise on all 85 channels; peer: one trial at a time, noise on stimuli alone",
            ),
            Row(
                "trials",
                "a batch against a training step of four 128-unit networks",
                "ms",
                batches,
                steps,
                10,
                "no peer: both are ours, the batch must take a tenth at most",
            ),
        ]
