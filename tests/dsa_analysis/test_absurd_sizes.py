"""Sizes that no machine has are refused by name, before anything is computed."""

import pytest

from dsa_analysis import DataError, compare, lorenz, noise_floor, null_distances

SYSTEMS = {str(seed): lorenz(4, 60, seed=seed) for seed in range(3)}
HOW = {"n_delays": 2, "rank": 3, "progress": False}


@pytest.mark.parametrize(
    ("name", "size"),
    [("n_starts", 10**18), ("n_sweeps", 10**18), ("n_delays", 10**14), ("rank", 10**15), ("seed", 10**30),
     ("delay_interval", 10**15), ("steps_ahead", 10**15), pytest.param("n_delays", 10**5000, id="digits")],
)  # fmt: skip
def test_comparison_names_the_size(name, size):
    with pytest.raises(DataError, match=rf"^{name} = .* is not a whole number of at least . and at most \d+$"):
        compare(SYSTEMS, **HOW | {name: size})


def test_repeats_are_limited():
    with pytest.raises(DataError, match=r"^n_splits = 1000000000 is not .* at most 1000000$"):
        noise_floor(SYSTEMS, n_splits=10**9, **HOW)
    with pytest.raises(DataError, match=r"^n = 1000000000000 is not .* at most 1000000$"):
        null_distances(SYSTEMS, kind="phase", n=10**12, **HOW)
