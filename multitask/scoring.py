"""Decoded direction of the output ring, and the score of a trial of a rule.

Only the last time step counts, as in the published code. Where the network should keep fixating, a trial is correct if
the fixation unit is above 0.5. Elsewhere it is correct if the fixation unit is at most 0.5 and the direction of the
output is within 36 degrees of the correct response. The direction is the population vector of the output ring,

    direction = atan2(sum_k y_k sin p_k, sum_k y_k cos p_k).

Breaking fixation too early increases the loss but does not change the score.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

import math

import torch
from torch import Tensor

from multitask.trials import MultitaskError, TrialBatch, circular_distance, preferred_directions

FIXATES = 0.5
HIT = 0.2 * math.pi  # 36 degrees, of a response


def decode_direction(outputs: Tensor) -> Tensor:
    """Direction of the population vector of the output ring.

    If all units of the ring are equal, the direction is undefined and depends on rounding.

    Parameters
    ----------
    outputs : Tensor, (..., 33)

    Returns
    -------
    Tensor, (...,), rad, in [0, 2 pi]
    """
    ring, preferred = outputs[..., 1:], preferred_directions().to(outputs)
    return torch.atan2((ring * preferred.sin()).sum(-1), (ring * preferred.cos()).sum(-1)) % (2 * math.pi)


def score_trials(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Score each trial by its last time step: 1 if it is correct, otherwise 0.

    Parameters
    ----------
    outputs : Tensor, (..., n_trials, n_times, 33)
        Outputs of one network, or of an ensemble with leading axis (E, n_trials, n_times, 33).
    batch : TrialBatch
        The trials that were shown.

    Returns
    -------
    Tensor, (..., n_trials)
        Where the response is nan ("keep fixating"), 1 if the fixation unit is above 0.5. Elsewhere, 1 if the fixation
        unit is at most 0.5 and the decoded direction is less than 36 degrees from the response.

    Raises
    ------
    MultitaskError
        If the shape of the outputs does not fit the batch, or if outputs are not finite at the last step.
    """
    wanted = (batch.n_trials, batch.n_times, 33)
    if tuple(outputs.shape[-3:]) != wanted:
        raise MultitaskError(
            f"outputs have shape {tuple(outputs.shape)}, but the batch of {batch.rule!r} requires "
            f"(..., {', '.join(map(str, wanted))})"
        )
    last = outputs[..., -1, :]
    if not last.isfinite().all():
        *network, trial = (~last.isfinite().all(-1)).nonzero()[0].tolist()
        where = f"network {network[0]}, " if network else ""
        raise MultitaskError(
            f"outputs are not finite at the last step of {where}trial {trial} of {batch.rule!r}: check whether "
            f"training diverged"
        )
    fixates, stays = last[..., 0] > FIXATES, batch.response.isnan()
    hits = circular_distance(decode_direction(last), batch.response.to(last)) < HIT  # false where the response is nan
    return torch.where(stays, fixates, ~fixates & hits).to(last)
