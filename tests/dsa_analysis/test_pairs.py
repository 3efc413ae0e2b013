"""Many pairs: blocks, workers and what is kept on disk change no distance."""

import joblib
import pytest
import torch

import dsa_analysis.metrics
from dsa_analysis import DataError, compare
from dsa_analysis.alignment import align_pairs
from dsa_analysis.metrics import METRICS
from dsa_analysis.pairs import solve_pairs

OPERATORS = torch.randn(9, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FIRST, SECOND = torch.triu_indices(9, 9, 1)  # 36 pairs
BUDGET = {"n_starts": 8, "group": "O", "remove_trace": False, "seed": 0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(dsa_analysis.metrics.Aligned, "pairs_at_once", lambda metric, n, device: 10)


@pytest.fixture
def solved_blocks(monkeypatch):
    """How many pairs each call of the solver was given."""
    calls: list[int] = []

    def counted(operators, first, second, **settings):
        calls.append(len(first))
        return align_pairs(operators, first, second, **settings)

    monkeypatch.setattr(dsa_analysis.metrics, "align_pairs", counted)
    return calls


def solve(store=None, **settings):
    return solve_pairs(METRICS["angular"], OPERATORS, FIRST, SECOND, BUDGET | settings, store=store)


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        assert torch.equal(a, b)


def test_blocks_change_nothing():
    whole = align_pairs(OPERATORS, FIRST, SECOND, **BUDGET)
    # a batch of matrix products of another size may round otherwise
    torch.testing.assert_close(solve()[0], whole.distance, rtol=0, atol=1e-9)


def test_blocks_hold_the_pairs_of_few_systems(monkeypatch):
    used: list[int] = []

    def counted(operators, first, second, **settings):
        used.append(len(operators))
        return align_pairs(operators, first, second, **settings)

    monkeypatch.setattr(dsa_analysis.metrics, "align_pairs", counted)
    operators = torch.randn(40, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second = torch.triu_indices(40, 40, 1)
    monkeypatch.setattr(dsa_analysis.metrics.Aligned, "pairs_at_once", lambda metric, n, device: 100)
    found = solve_pairs(METRICS["angular"], operators, first, second, {"n_starts": 1})
    assert len(used) == 8
    assert sum(used) / len(used) < 30  # two or three tiles of 10 x 10, where rows of the matrix would need 40
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(2))
    shuffled = solve_pairs(METRICS["angular"], operators, first[order], second[order], {"n_starts": 1})
    torch.testing.assert_close(shuffled.distance, found.distance[order], rtol=0, atol=1e-12)


def test_workers_change_nothing():
    with joblib.parallel_config("threading", n_jobs=2):
        assert_equal(solve(), solve())
        by_two = solve()
    assert_equal(by_two, solve())


def test_stored_pairs_are_not_solved_again(tmp_path, solved_blocks):
    fresh = solve()
    stored = solve(store=tmp_path)
    assert solved_blocks == 2 * [10, 10, 10, 6]
    assert_equal(fresh, stored)
    assert_equal(fresh, solve(store=tmp_path))
    assert len(solved_blocks) == 8
    assert sorted(path.suffix for path in tmp_path.iterdir()) == 4 * [".npz"]


def test_interrupted_comparison_does_the_rest(tmp_path, solved_blocks, monkeypatch):
    counted = dsa_analysis.metrics.align_pairs

    def stop_at_third(*arguments, **settings):
        if len(solved_blocks) == 2:
            raise KeyboardInterrupt
        return counted(*arguments, **settings)

    monkeypatch.setattr(dsa_analysis.metrics, "align_pairs", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        solve(store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(dsa_analysis.metrics, "align_pairs", counted)
    rest = solve(store=tmp_path)
    assert solved_blocks == [10, 10, 10, 6]
    assert_equal(rest, solve())


def test_other_settings_are_other_pairs(tmp_path, solved_blocks):
    solve(store=tmp_path)
    for other in ({"n_starts": 9}, {"seed": 1}, {"remove_trace": True}):
        before = len(solved_blocks)
        solve(store=tmp_path, **other)
        assert len(solved_blocks) == before + 4


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", None])
def test_damaged_block_is_solved_again(tmp_path, solved_blocks, damage):
    fresh = solve(store=tmp_path)
    path = min(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    if damage is None:
        data[data.index(b"distance") + 200] ^= 1  # one bit of the first distances
    path.write_bytes(data if damage is None else damage(bytes(data)))
    with pytest.warns(UserWarning, match="is damaged .* its pairs are solved again"):
        again = solve(store=tmp_path)
    assert len(solved_blocks) == 5
    assert_equal(fresh, again)


def test_operator_without_direction_is_named_whatever_its_block():
    operators = OPERATORS.clone()
    operators[7] = 0
    names = [f"system {name!r}" for name in "abcdefghi"]
    with pytest.raises(DataError, match="system 'h' is zero"):
        solve_pairs(METRICS["angular"], operators, FIRST, SECOND, BUDGET, names=names)


def test_comparison_keeps_its_pairs(tmp_path, solved_blocks):
    systems = dict(zip("abcdefghi", OPERATORS, strict=True))
    fresh = compare(systems, n_starts=8, progress=False)
    kept = compare(systems, n_starts=8, store=tmp_path / "pairs", progress=False)
    again = compare(systems, n_starts=8, store=tmp_path / "pairs", progress=False)
    assert len(solved_blocks) == 8
    assert (fresh.distances == kept.distances).all()
    assert (fresh.distances == again.distances).all()
    assert "store" not in fresh.settings  # where it was kept says nothing of the result


def test_sweeps_lower_distances_of_a_set_and_are_recorded():
    systems = dict(zip("abcdefghi", OPERATORS, strict=True))
    once = compare(systems, n_starts=1, progress=False)
    swept = compare(systems, n_starts=1, n_sweeps=2, progress=False)
    assert (swept.distances <= once.distances).all()
    assert (swept.distances < once.distances - 1e-3).any()
    assert (swept.gap >= 0).all()
    assert swept.settings["n_sweeps"] == 2
    with pytest.raises(DataError, match="n_sweeps = -1 is not a whole number of at least 0"):
        compare(systems, n_sweeps=-1, progress=False)
