"""The native climb: the tops of the one in torch, the same bits in any set, and what happens where it is missing."""

import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsa_analysis import align, native
from dsa_analysis.alignment import solver_key
from dsa_analysis.climb import climb
from dsa_analysis.multistart import prepare
from tests.dsa_analysis.operators import KINDS, gaussian, haar

CPU = torch.device("cpu")
built = pytest.mark.skipif(not native.status()[0], reason=native.status()[1])


def cores(p: int, n: int, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of operators as climbs take them, and starts (p, n, n)."""
    a, b = prepare(gaussian(2 * p, n, generator), False, ()).core.to(dtype).split(p)
    return a, b, haar(p, n, generator).to(dtype)


@built
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 11, 20])
def test_both_climbs_reach_the_same_tops(n, dtype, generator):
    a, b, C = cores(24, n, dtype, generator)
    budget = {"n_steps": 100, "n_inner": 15, "tolerance": 1e-9 if dtype == torch.float64 else 1e-4}
    ends, heights, slopes = native.climb(a, b, torch.arange(24), C, **budget)
    _, expected, _ = climb(a, b, C, **budget)
    same = (heights - expected).abs() < 1e-5
    assert same.double().mean() > 0.6  # from some starts the two retractions lead to different tops
    accuracy = 1e-12 if dtype == torch.float64 else 1e-5  # single precision drifts over some 30 steps
    assert (heights - expected)[same].abs().max() < accuracy
    torch.testing.assert_close(heights, (a * (ends @ b @ ends.mT)).sum((-1, -2)), rtol=0, atol=accuracy)
    torch.testing.assert_close(ends @ ends.mT, torch.eye(n, dtype=dtype).expand_as(ends), rtol=0, atol=10 * accuracy)
    assert slopes.max() < (1e-6 if dtype == torch.float64 else 1e-2)


@built
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_both_climbs_reach_the_same_tops_with_a_linear_term(n, dtype, generator):
    a, b, C = cores(24, n, dtype, generator)
    a, L = a / 2, gaussian(24, n, generator).to(dtype)
    L = L / torch.linalg.svdvals(L).sum(-1)[:, None, None] / 2
    budget = {"n_steps": 100, "n_inner": 15, "tolerance": 1e-9 if dtype == torch.float64 else 1e-4}
    ends, heights, slopes = native.climb(a, b, torch.arange(24), C, L, **budget)
    _, expected, _ = climb(a, b, C, L, **budget)
    same = (heights - expected).abs() < 1e-5
    assert same.double().mean() > 0.6  # from some starts the two retractions lead to different tops
    accuracy = 1e-12 if dtype == torch.float64 else 1e-5
    assert (heights - expected)[same].abs().max() < accuracy
    reached = (a * (ends @ b @ ends.mT)).sum((-1, -2)) + (L * ends).sum((-1, -2))
    torch.testing.assert_close(heights, reached, rtol=0, atol=accuracy)
    assert slopes.max() < (1e-6 if dtype == torch.float64 else 1e-2)
    nothing = native.climb(a, b, torch.arange(24), C, torch.zeros_like(L), **budget)
    without = native.climb(a, b, torch.arange(24), C, **budget)
    assert all(torch.equal(x, y) for x, y in zip(nothing, without, strict=True))


@built
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_climbs_give_the_same_bits_alone_in_any_order_and_in_slices(dtype, generator, monkeypatch):
    a, b, C = cores(21, 7, dtype, generator)
    budget = {"n_steps": 30, "n_inner": 8, "tolerance": 1e-5}
    whole = native.climb(a, b, torch.arange(21), C, **budget)
    order = torch.randperm(21, generator=generator)
    shuffled = native.climb(a, b, order, C[order], **budget)
    assert all(torch.equal(x[order], y) for x, y in zip(whole, shuffled, strict=True))
    alone = native.climb(a[4:5], b[4:5], torch.zeros(1, dtype=torch.int64), C[4:5], **budget)
    assert all(torch.equal(x[4:5], y) for x, y in zip(whole, alone, strict=True))
    monkeypatch.setattr(native, "SLICE", 1.0)
    sliced = native.climb(a, b, torch.arange(21), C, **budget)
    assert all(torch.equal(x, y) for x, y in zip(whole, sliced, strict=True))


@built
@pytest.mark.filterwarnings("ignore:system:UserWarning")
@pytest.mark.parametrize("group", ["O", "SO"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 11])
def test_both_paths_find_the_same_distance(n, kind, group, generator, monkeypatch):
    a, b = KINDS[kind](8, n, generator).split(4)
    found = align(a, b, group=group, remove_trace=True)
    monkeypatch.setenv("COMPUTE_ALIKE_NATIVE", "0")
    expected = align(a, b, group=group, remove_trace=True)
    same = (found.distance - expected.distance).abs() < 1e-6
    assert same.sum() >= 3  # the native path looks further
    torch.testing.assert_close(found.distance[same], expected.distance[same], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.lower_bound[same], expected.lower_bound[same], rtol=0, atol=1e-9)


@built
def test_inputs_stay_as_they_are_and_threads_do_not_disturb_each_other(generator):
    a, b = gaussian(12, 8, generator).split(6)
    before = a.clone(), b.clone()
    expected = align(a, b)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: align(a, b), range(4)))
    assert all(torch.equal(result.transform, expected.transform) for result in results)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@built
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_long_calls_end_on_ctrl_c_within_a_second(generator):
    a, b, C = cores(1, 40, torch.float64, generator)
    C, which = C.expand(8000, 40, 40), torch.zeros(8000, dtype=torch.int64)  # minutes of work
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            native.climb(a, b, which, C, n_steps=100, n_inner=25, tolerance=0.0)
        assert time.process_time() - begin < 1.2  # of this process: others may keep it waiting
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@built
def test_no_climbs_are_no_work():
    nothing = torch.zeros(0, 3, 3)
    ends = native.climb(nothing, nothing, torch.zeros(0, dtype=torch.int64), nothing, n_steps=1, n_inner=1, tolerance=0)
    assert [len(x) for x in ends] == [0, 0, 0]


# ---- where it is missing ---------------------------------------------------------------------------------------------


class FakeCompiler:
    """A compiler that copies a library that was compiled before, and counts what it did."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self.count = folder, folder / "count"
        self.write(f'sleep 0.3; echo x >> "{self.count}"; cp "{library}" "$out"')

    def write(self, work: str) -> None:
        program = self.folder / "c++"
        program.write_text(
            '#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1; exit 0; fi\n'
            f'while [ $# -gt 1 ]; do [ "$1" = -o ] && out="$2"; shift; done\n{work}\n'
        )
        program.chmod(0o755)

    @property
    def n_compiled(self) -> int:
        return len(self.count.read_text().split()) if self.count.exists() else 0


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    if sys.platform == "win32" or not native.status()[0]:
        pytest.skip("needs a library compiled before, and a shell")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeCompiler(folder, Path(native._library()._name))  # type: ignore[union-attr]


def reason(folder: Path) -> str:
    with pytest.raises(native.Unavailable) as problem:
        native._load(folder)
    return str(problem.value)


def test_library_is_compiled_once_and_then_loaded(compiler, tmp_path):
    for _ in range(2):
        assert native._load(tmp_path / "cache").climb_free
    assert compiler.n_compiled == 1
    assert len(list((tmp_path / "cache").glob("climb-*"))) == 1


def test_processes_that_start_at_once_compile_once(compiler, tmp_path):
    with ThreadPoolExecutor(4) as pool:  # the lock belongs to an open file: threads hold it like processes
        libraries = list(pool.map(native._load, [tmp_path / "cache"] * 4))
    assert all(library.climb_free for library in libraries)
    assert compiler.n_compiled == 1


def test_another_compiler_compiles_anew(compiler, tmp_path, monkeypatch):
    native._load(tmp_path)
    (tmp_path / "bin" / "c++").write_text((tmp_path / "bin" / "c++").read_text().replace("fake 1", "fake 2"))
    native._load(tmp_path)
    assert compiler.n_compiled == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda c: c + b"x"]
)
def test_damaged_library_is_compiled_once_more(compiler, tmp_path, damage):
    native._load(tmp_path)
    (library,) = tmp_path.glob("climb-*")
    content = library.read_bytes()
    library.unlink()  # what is loaded stays as it is
    library.write_bytes(damage(content))
    assert native._load(tmp_path).climb_free
    assert compiler.n_compiled == 2


def test_compiler_that_makes_no_library_is_told(compiler, tmp_path):
    compiler.write('echo rubbish > "$out"')
    assert reason(tmp_path) == f"the library compiled into {tmp_path} does not load"


def test_failing_compiler_is_told_with_its_words(compiler, tmp_path):
    compiler.write("echo 'climb.cpp:1: no such thing' >&2; exit 1")
    assert reason(tmp_path).endswith("c++ failed: climb.cpp:1: no such thing")
    compiler.write("exit 3")
    assert reason(tmp_path).endswith("c++ failed: it ended with 3")


def test_missing_compiler_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reason(tmp_path) == "there is no C++ compiler (c++, g++, clang++)"


def test_folder_that_cannot_be_written_is_told(compiler, tmp_path):
    (tmp_path / "file").touch()
    assert re.search(r"file/cache cannot be written \(Not a directory\)", reason(tmp_path / "file" / "cache"))


def test_unknown_processor_is_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(native.platform, "processor", lambda: "")
    with pytest.raises(native.Unavailable, match="not known which instructions this processor"):
        native._processor()


def test_cache_is_in_the_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._cache_folder() == tmp_path / "compute-alike"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for system, folder in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert native._cache_folder() == tmp_path / folder / "compute-alike"


def test_alignment_goes_on_in_torch_where_there_is_no_library(monkeypatch, generator):
    a, b = gaussian(4, 5, generator).split(2)
    found = align(a, b, n_starts=32)
    monkeypatch.setattr(native, "_library", lambda: "there is no C++ compiler (c++, g++, clang++)")
    taken, line = native.status()
    assert not taken
    assert line == "alignment: torch (10 times slower), because there is no C++ compiler (c++, g++, clang++)"
    torch.testing.assert_close(align(a, b, n_starts=32).distance, found.distance, rtol=0, atol=1e-6)


def test_environment_turns_it_off(monkeypatch):
    monkeypatch.setenv("COMPUTE_ALIKE_NATIVE", "0")
    assert native.status() == (False, "alignment: torch, because COMPUTE_ALIKE_NATIVE=0")


@built
def test_stored_results_of_the_two_paths_are_kept_apart(monkeypatch):
    natively = solver_key(CPU)
    monkeypatch.setenv("COMPUTE_ALIKE_NATIVE", "0")
    assert solver_key(CPU) != natively
