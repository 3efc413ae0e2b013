"""The hand-written recurrence, compared with a plain loop over the equation and its autograd gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.scan import ACTIVATIONS, leaky_scan

ALPHA = 0.2
PLAIN = {  # independent of ACTIVATIONS, to detect wrong entries
    "softplus": torch.nn.functional.softplus,
    "relu": lambda z: z.clamp(min=0),
    "tanh": torch.tanh,
    "retanh": lambda z: torch.tanh(z.clamp(min=0)),
    "power": lambda z: z.clamp(min=0) ** 2,
}


def assert_close(ours: Tensor, theirs: Tensor, rtol: float, atol: float) -> None:
    np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=rtol, atol=atol)


def by_the_book(
    x: Tensor, w_in: Tensor, w_rec: Tensor, w_out: Tensor, b_out: Tensor, activation: str, noise: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """h_t = (1 - alpha) h_{t-1} + alpha f(x_t W_in + h_{t-1} W_rec + noise_t), one time step after the other."""
    h = x.new_zeros(w_in.shape[0], x.shape[2], w_in.shape[2])
    states = []
    for t in range(x.shape[1]):
        noise_t = noise[:, t] if isinstance(noise, Tensor) else noise
        h = (1 - ALPHA) * h + ALPHA * PLAIN[activation](x[:, t] @ w_in + h @ w_rec + noise_t)
        states.append(h)
    hidden = torch.stack(states, 1)
    return hidden, hidden @ w_out[:, None] + b_out[:, None]


def problem(
    n_networks: int, n_batches: int, generator: torch.Generator, n_times: int = 20, n_trials: int = 4, n_units: int = 7
) -> tuple[Tensor, list[Tensor]]:
    def normal(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    x = normal(n_batches, n_times, n_trials, 5, scale=1.0)
    weights = [normal(n_networks, rows, columns, scale=0.3) for rows, columns in ((5, n_units), (n_units, n_units))]
    return x, [*weights, normal(n_networks, n_units, 3, scale=1.0), normal(n_networks, 1, 3, scale=1.0)]


@pytest.mark.parametrize("shared", [True, False], ids=["shared inputs", "own inputs"])
@pytest.mark.parametrize("n_networks", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_states_outputs_and_all_gradients_equal_those_of_the_plain_loop(activation, n_networks, shared, generator):
    x, weights = problem(n_networks, 1 if shared else n_networks, generator)
    buffers = {}
    for _ in range(2):  # the second call works in the buffers of the first
        ours = leaky_scan(x, *weights, alpha=ALPHA, activation=activation, buffers=buffers)
        book = by_the_book(x, *weights, activation)
        for mine, theirs in zip(ours, book, strict=True):
            assert_close(mine, theirs, rtol=1e-12, atol=1e-12)  # the same sums in another order
        gradients = [
            torch.autograd.grad((h**2).sum() + torch.sigmoid(o).pow(3).sum(), [x, *weights]) for h, o in (ours, book)
        ]
        for mine, theirs in zip(*gradients, strict=True):
            assert (mine - theirs).abs().max() <= 1e-10 * theirs.abs().max()  # 20 steps of float64 rounding


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_passes_the_numerical_check(activation, generator):
    x, weights = problem(2, 1, generator, n_times=6, n_trials=3, n_units=5)

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return leaky_scan(*tensors, alpha=ALPHA, activation=activation)

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)  # along random directions


@pytest.mark.parametrize("used", ["hidden", "outputs"])
def test_a_loss_of_the_states_or_of_the_outputs_alone_has_its_own_gradient(used, generator):
    x, weights = problem(2, 1, generator)
    pick = 0 if used == "hidden" else 1
    gradients = [
        torch.autograd.grad(run[pick].square().sum(), weights, allow_unused=True, materialize_grads=True)
        for run in (leaky_scan(x, *weights, alpha=ALPHA, activation="tanh"), by_the_book(x, *weights, "tanh"))
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_weights_that_need_no_gradient_get_none_and_change_no_other(generator):
    x, weights = problem(2, 1, generator)
    _, outputs = leaky_scan(x, *weights, alpha=ALPHA, activation="relu")
    expected = torch.autograd.grad(outputs.square().sum(), weights[2])[0]
    frozen = [w.detach() if i != 2 else w for i, w in enumerate(weights)]
    _, outputs = leaky_scan(x.detach(), *frozen, alpha=ALPHA, activation="relu")
    outputs.square().sum().backward()
    assert torch.equal(weights[2].grad, expected)


def test_noise_enters_inside_the_nonlinearity_with_the_given_spread(generator):
    n_networks, n_times, n_trials, n_units, sd = 2, 30, 50, 20, 0.3
    x, weights = problem(n_networks, 1, generator, n_times, n_trials, n_units)
    noise = torch.empty(n_networks, n_times * n_trials, n_units, dtype=torch.float64)
    noise.normal_(0.0, sd, generator=torch.Generator().manual_seed(5))
    ours = leaky_scan(
        x, *weights, alpha=ALPHA, activation="tanh", noise_sd=sd, generator=torch.Generator().manual_seed(5)
    )
    book = by_the_book(x, *weights, "tanh", noise.view(n_networks, n_times, n_trials, n_units))
    assert_close(ours[0], book[0], rtol=1e-12, atol=1e-12)


def test_results_without_gradient_are_the_same(generator):
    x, weights = problem(3, 1, generator)
    with_gradient = leaky_scan(x, *weights, alpha=ALPHA, activation="softplus")
    with torch.no_grad():
        without = leaky_scan(x, *weights, alpha=ALPHA, activation="softplus")
    assert all(torch.equal(a, b) for a, b in zip(with_gradient, without, strict=True))
    assert not without[0].requires_grad


def test_buffers_grow_with_the_batch_and_are_reused_by_smaller_ones(generator):
    buffers = {}
    for n_times in (20, 30, 10):
        x, weights = problem(2, 1, generator, n_times=n_times)
        ours = leaky_scan(x, *weights, alpha=ALPHA, activation="relu", buffers=buffers)
        assert torch.equal(ours[0], leaky_scan(x, *weights, alpha=ALPHA, activation="relu")[0])
        assert buffers["z"].numel() == 2 * max(20, n_times, 30 if n_times == 10 else 0) * 4 * 7


def test_a_backward_pass_that_comes_too_late_is_an_error(generator):
    x, weights = problem(1, 1, generator)
    buffers = {}
    _, outputs = leaky_scan(x, *weights, alpha=ALPHA, activation="relu", buffers=buffers)
    leaky_scan(x, *weights, alpha=ALPHA, activation="relu", buffers=buffers)
    with pytest.raises(RuntimeError, match="has been modified inplace"):
        outputs.sum().backward()


def test_a_second_backward_pass_through_buffers_is_an_error(generator):
    x, weights = problem(1, 1, generator)
    _, outputs = leaky_scan(x, *weights, alpha=ALPHA, activation="relu", buffers={})
    torch.autograd.grad(outputs.sum(), weights, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(outputs.sum(), weights)


def test_inputs_and_weights_are_left_as_they_were(generator):
    x, weights = problem(2, 1, generator)
    before = [tensor.detach().clone() for tensor in (x, *weights)]
    _, outputs = leaky_scan(x, *weights, alpha=ALPHA, activation="tanh", buffers={})
    outputs.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip((x, *weights), before, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slope_is_the_derivative_of_the_activation(activation):
    z = torch.linspace(-40, 40, 161, dtype=torch.float64)[torch.arange(161) != 80].requires_grad_()  # not at the kink
    f, write, slope = ACTIVATIONS[activation]
    value = f(z)
    (expected,) = torch.autograd.grad(value.sum(), z)
    z, value = z.detach(), value.detach()
    assert_close(write(z, torch.empty_like(z)), value, rtol=1e-14, atol=0)
    assert_close(slope(z, value, z.clone()), expected, rtol=1e-12, atol=1e-15)
