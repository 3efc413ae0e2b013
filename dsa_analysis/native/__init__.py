"""The climb as one C++ function, compiled at first use for the processor it runs on.

The library is kept in a folder of the user, under a name that holds a hash of its source, of the compiler and of the
processor, and a hash of itself. Where it cannot be built or loaded, alignments take the slower path in torch, with the
same tops; `status` says which path is taken, and why. ``COMPUTE_ALIKE_NATIVE=0`` in the environment turns it off.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("climb.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
TUNING = ("-march=native", "-mcpu=native")  # the first that the compiler takes
SUFFIX = ".dll" if sys.platform == "win32" else ".so"
COMPILE_SECONDS = 120  # longest time for compiling, and for waiting for another process that compiles
SLICE = 2e9  # multiplications between two looks at Ctrl-C, about .1 s
SYMBOLS = ("climb_new_float32", "climb_new_float64", "climb_advance", "climb_free")


class Unavailable(Exception):
    """Why the native path cannot be taken."""


def status() -> tuple[bool, str]:
    """Whether alignments on the CPU take the native path, and one line that says so or says why not.

    Compiles the library if that has not been done yet, which takes some seconds.
    """
    if os.environ.get("COMPUTE_ALIKE_NATIVE") == "0":
        return False, "alignment: torch, because COMPUTE_ALIKE_NATIVE=0"
    library = _library()
    if isinstance(library, str):
        return False, f"alignment: torch (10 times slower), because {library}"
    return True, f"alignment: native, {library._name}"


def available(device: torch.device) -> bool:
    """Whether tensors on ``device`` are aligned by the native path."""
    return device.type == "cpu" and status()[0]


def climb(
    A: Tensor,
    B: Tensor,
    which: Tensor,
    C: Tensor,
    linear: Tensor | None = None,
    *,
    n_steps: int,
    n_inner: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `dsa_analysis.climb.climb` from each C (P, n, n), between ``A[which]`` and ``B[which]``.

    A, B and ``linear`` are (N, n, n) and ``which`` is (P,). All in one precision, float32 or float64, on the CPU.
    """
    library = _library()
    assert isinstance(library, ctypes.CDLL)
    n_climbs, n, _ = C.shape
    A, B, C, which = A.contiguous(), B.contiguous(), C.clone(memory_format=torch.contiguous_format), which.contiguous()
    f, slope = C.new_empty(n_climbs), C.new_empty(n_climbs)
    L = None if linear is None else linear.contiguous()
    if not n_climbs:
        return C, f, slope
    new = library.climb_new_float32 if C.dtype == torch.float32 else library.climb_new_float64
    pointers = [None if x is None else x.data_ptr() for x in (A, which, B, which, L, C, f, slope)]
    job = new(n_climbs, n, *pointers, n_steps, n_inner, tolerance)
    if not job:
        raise MemoryError(f"no memory to align operators of size {n}")
    try:
        while library.climb_advance(job, SLICE):  # between slices Python sees Ctrl-C
            pass
    finally:
        library.climb_free(job)
    return C, f, slope


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The library, or why there is none; looked for once a process."""
    try:
        return _load(_cache_folder())
    except Unavailable as reason:
        return str(reason)


def _load(folder: Path) -> ctypes.CDLL:
    """Load the library from ``folder``, where it is compiled unless it is there. One that does not load is replaced."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise Unavailable(f"there is no C++ compiler ({', '.join(COMPILERS)})")
    key = _key(compiler)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _one_at_a_time(folder / f"{key}.lock"):
            library = _open(folder, key)
            if library is None:
                _compile(compiler, folder, key)
                library = _open(folder, key)
    except OSError as problem:
        raise Unavailable(f"{folder} cannot be written ({problem.strerror or problem})") from problem
    if library is None:
        raise Unavailable(f"the library compiled into {folder} does not load")
    return library


def _open(folder: Path, key: str) -> ctypes.CDLL | None:
    """The library of that key, None if there is none or it is damaged; damaged ones are removed."""
    for path in sorted(folder.glob(f"climb-{key}-*{SUFFIX}")):
        try:
            if path.stem.rsplit("-", 1)[1] != _digest(path.read_bytes()):  # loading half a library can end the process
                raise OSError("damaged")
            library = ctypes.CDLL(str(path))
            for name in SYMBOLS:
                getattr(library, name)
        except (OSError, AttributeError):
            path.unlink(missing_ok=True)
            continue
        for new in (library.climb_new_float32, library.climb_new_float64):
            new.restype = ctypes.c_void_p
            new.argtypes = [ctypes.c_int64, ctypes.c_int, *[ctypes.c_void_p] * 8, ctypes.c_int, ctypes.c_int]
            new.argtypes += [ctypes.c_double]
        library.climb_advance.argtypes = [ctypes.c_void_p, ctypes.c_double]
        library.climb_advance.restype = ctypes.c_int
        library.climb_free.argtypes = [ctypes.c_void_p]
        library.climb_free.restype = None
        return library
    return None


def _compile(compiler: str, folder: Path, key: str) -> None:
    """Write the library into ``folder``, whole or not at all."""
    words = "it could not be run"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        built = Path(work, f"climb{SUFFIX}")
        for tuning in TUNING:
            command = [compiler, *FLAGS, tuning, str(SOURCE), "-o", str(built)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
            except (OSError, subprocess.SubprocessError) as problem:
                raise Unavailable(f"{compiler} failed: {problem}") from problem
            if done.returncode == 0 and built.is_file():
                os.replace(built, folder / f"climb-{key}-{_digest(built.read_bytes())}{SUFFIX}")
                return
            words = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[0]
    raise Unavailable(f"{compiler} failed: {words}")


def _key(compiler: str) -> str:
    """Hash of what decides about the library."""
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError) as problem:
        raise Unavailable(f"{compiler} failed: {problem}") from problem
    parts = (SOURCE.read_text(encoding="utf-8"), version, *FLAGS, *TUNING, _processor())
    return _digest("\n".join(parts).encode())


def _processor() -> str:
    """Kind of processor and the instructions it knows."""
    known = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            names = ["sysctl", "-n", "machdep.cpu.brand_string"]
            known = subprocess.run(names, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
        elif sys.platform == "win32":
            known = platform.processor()
        else:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            named = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # of the first core
            named = {name.strip(): value.strip() for name, value in named.items()}
            known = named.get("flags") or named.get("Features") or ""
    if not known:
        raise Unavailable(f"it is not known which instructions this processor ({platform.machine()}) has")
    return f"{platform.machine()} {known}"


def _cache_folder() -> Path:
    """Folder of the user for what can be made again."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "compute-alike"
    try:
        home = Path.home()
    except RuntimeError as problem:
        raise Unavailable("there is no home folder to keep the library in; set XDG_CACHE_HOME") from problem
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "compute-alike"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "compute-alike"


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for other processes that compile the same library; a lock ends with the process that holds it."""
    from filelock import FileLock

    lock = FileLock(path, fallback_to_soft=False)
    with contextlib.suppress(OSError):  # another has compiled for too long, or a file system without locks
        lock.acquire(timeout=COMPILE_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
