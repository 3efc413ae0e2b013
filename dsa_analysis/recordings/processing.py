"""Trials -> smoothed, decimated, z-scored trials, in this order. Arguments are not changed."""

import math

import numpy as np

from dsa_analysis.containers import DataError
from dsa_analysis.data import rounding


def smoothed(trials: list[np.ndarray], width: float) -> list[np.ndarray]:
    """Gaussian mean over time, ``width`` its standard deviation in samples, of the samples that are there."""
    from scipy.ndimage import gaussian_filter1d

    result = []
    for trial in trials:
        weight = gaussian_filter1d(np.ones(len(trial)), width, mode="constant")
        sums = gaussian_filter1d(trial, width, axis=0, mode="constant")
        result.append(sums / weight[:, None].astype(trial.dtype))
    return result


def decimated(trials: list[np.ndarray], factor: int, where: str) -> list[np.ndarray]:
    """The mean of each ``factor`` consecutive samples; an incomplete group at the end of a trial is dropped."""
    for k, trial in enumerate(trials):
        if len(trial) < factor:
            raise DataError(f"{where}, trial {k} has {len(trial)} samples; decimate = {factor} leaves none")
    return [x[: len(x) // factor * factor].reshape(len(x) // factor, factor, -1).mean(1) for x in trials]


def standardised(trials: list[np.ndarray]) -> list[np.ndarray]:
    """Each channel with mean 0 and variance 1 over all samples of trials without NaN; constant channels are 0.

    A constant channel that was smoothed varies by rounding errors, which must not be scaled to variance 1: a range
    below `data.rounding` of the channel's magnitude counts as constant.
    """
    whole = [trial for trial in trials if np.isfinite(trial).all()]
    samples = np.concatenate(whole or trials)
    mean, deviation = samples.mean(0, dtype=float), samples.std(0, dtype=float)
    low, high = samples.min(0).astype(float), samples.max(0).astype(float)
    tolerance = rounding(samples.dtype) * np.maximum(abs(low), abs(high))
    constant = high - low <= tolerance
    mean, deviation = np.where(constant, low, mean), np.where(constant, 1, deviation)
    result = []
    for trial in trials:
        shifted = trial - mean
        shifted[constant & (abs(shifted) <= tolerance)] = 0
        result.append((shifted / deviation).astype(trial.dtype))
    return result


def check_width(smooth: float, rate: float, longest: int, where: str) -> float:
    """``smooth`` in samples; refuse a Gaussian wider than the longest trial, which leaves little but the mean."""
    width = smooth * rate / 1000
    if not width <= longest:
        raise DataError(
            f"{where}: smooth = {smooth:g} ms is longer than the longest trial ({1000 * longest / rate:g} ms)"
        )
    return width


def reach(width: float) -> int:
    """Samples on each side beyond which a Gaussian of this standard deviation is cut."""
    return math.ceil(4 * width)
