"""Distances between eigenvalues, and what an eigenvalue means in time."""

import cmath
import itertools
import math

import pytest
import torch
from torch import Tensor

from dsa_analysis import DataError, match_modes, spectral_distance
from dsa_analysis.spectra import frequencies, time_constants


def spectra(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def test_distance_is_the_best_of_all_permutations():
    a, b = spectra(2, 5)
    best = min(float((a - b[list(order)]).abs().square().mean().sqrt()) for order in itertools.permutations(range(5)))
    assert float(spectral_distance(a, b)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("leading", [(), (0,), (3,), (2, 3)])
def test_leading_axes_are_pairs_solved_one_by_one(leading):
    a, b = spectra(*leading, 4), spectra(*leading, 4, seed=1)
    distance = spectral_distance(a, b)
    assert distance.shape == leading
    assert distance.dtype == torch.float64
    alone = [float(spectral_distance(x, y)) for x, y in zip(a.reshape(-1, 4), b.reshape(-1, 4), strict=True)]
    assert distance.flatten().tolist() == alone


def test_distance_is_a_metric_on_spectra():
    a, b, c = spectra(3, 200, 4)
    ab, bc, ac = spectral_distance(a, b), spectral_distance(b, c), spectral_distance(a, c)
    torch.testing.assert_close(ab, spectral_distance(b, a), rtol=0, atol=1e-12)
    assert (spectral_distance(a, a[:, [2, 0, 3, 1]]) == 0).all()  # the order of eigenvalues means nothing
    assert (ab + bc - ac >= -1e-12).all()  # its square is no metric


def test_one_eigenvalue_is_as_far_as_it_lies_apart():
    assert float(spectral_distance(torch.tensor([1 + 0j]), torch.tensor([0.5 + 0j]))) == pytest.approx(0.5)


def test_spectra_of_different_size_are_refused():
    with pytest.raises(
        DataError, match=r"spectra of shapes \(3,\) and \(4,\) cannot be matched: fit both systems at one r"
    ):
        spectral_distance(spectra(3), spectra(4))


def test_time_constants_and_frequencies_invert_the_exponential():
    rates = torch.tensor([-0.5 + 2j, -0.5 - 2j, -3 + 0j, 0.1 + 0j])
    eigenvalues = torch.exp(rates * 0.05)
    torch.testing.assert_close(time_constants(eigenvalues, 0.05), -1 / rates.real, rtol=1e-4, atol=0)  # float32
    torch.testing.assert_close(frequencies(eigenvalues, 0.05), rates.imag / (2 * math.pi), rtol=1e-4, atol=1e-6)


def test_modes_that_last_have_no_end_and_fast_ones_reach_the_nyquist_frequency():
    values = torch.tensor([1.0, -1.0], dtype=torch.complex128)
    assert time_constants(values, 0.1).isinf().all()
    torch.testing.assert_close(frequencies(values, 0.1), torch.tensor([0.0, 5.0], dtype=torch.float64))


def modes(*pairs: tuple[float, float], dt: float = 20.0) -> Tensor:
    """Eigenvalues of modes with these time constants (ms) and frequencies (Hz), conjugates included."""
    z = [cmath.exp(-dt / tau + 2j * math.pi * hz * dt / 1000) for tau, hz in pairs]
    return torch.tensor(
        [w for (_, hz), x in zip(pairs, z, strict=True) for w in ((x, x.conjugate()) if hz else (x,))],
        dtype=torch.complex128,
    )


def test_modes_are_found_whatever_their_order():
    expected = modes((500.0, 2.0), (2000.0, 0.0), (100.0, 5.0), (60.0, 0.0))
    found = modes((105.0, 5.5), (30.0, 0.0), (550.0, 2.0), (1500.0, 0.0))
    table = match_modes(found, expected.flip(0), dt=20.0)
    assert table["expected_time_constant"].tolist() == pytest.approx([2000, 500, 100])
    assert table["time_constant"].tolist() == pytest.approx([1500, 550, 105])
    assert table["expected_frequency"].tolist() == pytest.approx([0, 2, 5])
    assert table["frequency"].tolist() == pytest.approx([0, 2, 5.5])
    assert table["error"].tolist() == pytest.approx([-0.25, 0.1, 0.05])
    assert table["gap"][0] == pytest.approx(math.exp(-0.01) - math.exp(-20 / 1500))


def test_no_mode_is_found_twice():
    table = match_modes(modes((1000.0, 0.0), (200.0, 0.0)), modes((1000.0, 0.0), (990.0, 0.0)), dt=20.0, n_modes=2)
    assert table["time_constant"].tolist() == pytest.approx([1000, 200])


def test_a_mode_that_grows_has_a_negative_time_constant():
    table = match_modes(modes((-3000.0, 0.0)), modes((-2000.0, 0.0)), dt=20.0, n_modes=1)
    assert table["time_constant"].tolist() == pytest.approx([-3000])
    assert table["error"].tolist() == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("found", "expected", "n_modes", "message"),
    [
        (1, 3, 2, r"found has 1 modes \(a conjugate pair is one\); n_modes = 2 is too many"),
        (3, 1, 2, "expected has 1 modes"),
        (3, 3, 0, "n_modes = 0 is not a whole number of at least 1"),
    ],
)
def test_more_modes_than_there_are_are_refused(found, expected, n_modes, message):
    pairs = [(500.0, 2.0), (300.0, 0.0), (100.0, 1.0)]
    with pytest.raises(DataError, match=message):
        match_modes(modes(*pairs[:found]), modes(*pairs[:expected]), dt=20.0, n_modes=n_modes)
