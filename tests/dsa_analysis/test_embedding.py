"""Delay embedding: each row is the window of one time, newest sample first, and no window leaves its trial."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsa_analysis import Comparison, DataError, delay_embed


@given(
    n_delays=st.integers(1, 5),
    delay_interval=st.integers(1, 4),
    n_channels=st.integers(1, 3),
    n_windows=st.integers(1, 6),
    leading=st.sampled_from([(), (1,), (3,), (2, 2)]),
)
def test_row_t_is_the_window_that_ends_at_t(n_delays, delay_interval, n_channels, n_windows, leading):
    past = (n_delays - 1) * delay_interval
    x = torch.arange(1.0, 1 + torch.Size((*leading, past + n_windows, n_channels)).numel())
    x = x.view(*leading, past + n_windows, n_channels)
    embedded = delay_embed(x, n_delays, delay_interval)
    assert embedded.shape == (*leading, n_windows, n_delays * n_channels)
    for row in range(n_windows):
        for delay in range(n_delays):
            block = embedded[..., row, delay * n_channels : (delay + 1) * n_channels]
            assert torch.equal(block, x[..., past + row - delay * delay_interval, :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_one_delay_gives_back_the_values_in_their_precision(dtype):
    x = torch.arange(12).view(2, 3, 2).to(dtype)
    embedded = delay_embed(x, 1)
    assert torch.equal(embedded, x)
    assert embedded.dtype == dtype


def test_gradients_pass_through():
    x = torch.zeros(5, 1, requires_grad=True)
    delay_embed(x, 3).sum().backward()
    assert torch.equal(x.grad[:, 0], torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]))  # windows that hold each sample


def test_window_longer_than_trial_is_refused():
    message = "a window of 5 samples does not fit into trials of 4: lower n_delays = 3 or delay_interval = 2"
    with pytest.raises(DataError, match=re.escape(message)):
        delay_embed(torch.zeros(2, 4, 1), 3, 2)
    assert delay_embed(torch.zeros(2, 5, 1), 3, 2).shape == (2, 1, 3)


@pytest.mark.parametrize("counts", [{"n_delays": 0}, {"n_delays": 1.5}, {"n_delays": 2, "delay_interval": 0}])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(DataError, match="is not a whole number of at least 1"):
        delay_embed(torch.zeros(9, 1), **counts)


@pytest.mark.parametrize("time", [{"horizon": 0.2, "n_delays": 3}, {"window": 0.3}])
def test_times_need_a_sampling_interval_when_samples_are_counted(time):
    how = Comparison(rank=2, **time)  # the interval may come later
    with pytest.raises(DataError, match=r"= 0\.\d is a time, so dt \(the sampling interval\) is needed"):
        how.embedding()
    embedding = how.override(dt=0.1).embedding()
    assert (embedding.n_delays, embedding.steps_ahead) == (3, 2 if "horizon" in time else 1)


@pytest.mark.parametrize("ridge", [None, [1.0], "x", True, -1.0, float("nan"), float("inf")])
def test_ridge_that_is_no_number_is_refused(ridge):
    with pytest.raises(DataError, match=r"ridge = .* is not a number of at least 0"):
        Comparison(ridge=ridge)
