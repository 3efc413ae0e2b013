"""The package as a whole: imports without cycles or heavy modules, and complete docstrings."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import multitask

ROOT = Path(multitask.__file__).parents[1]
HEAVY = {"h5py", "joblib", "matplotlib", "pandas", "scipy", "seaborn", "sklearn", "xarray"}
NEIGHBOURS = {"dsa_analysis", "workbench"}
FUNCTIONS = [name for name in multitask.__all__ if inspect.isfunction(getattr(multitask, name))]


def modules() -> dict[str, Path]:
    """All modules of the package, by name."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("multitask/**/*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports anywhere, also in functions and for type hints."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]  # modules, or names in the module
            names = [name if name in known else str(node.module) for name in inner]
        else:
            continue
        yield from (name for name in names if name in known)


def test_no_module_imports_itself_through_others():
    known = modules()
    edges = {name: set(imported(path, known)) for name, path in known.items()}
    assert len(edges) > 20
    while leaves := [name for name, targets in edges.items() if not targets]:
        edges = {name: targets.difference(leaves) for name, targets in edges.items() if targets}
    assert not edges, f"import cycle among {sorted(edges)}"


def test_importing_the_package_loads_no_heavy_module_and_draws_no_random_number():
    code = (
        "import sys, torch; before = set(sys.modules); state = torch.get_rng_state(); import multitask; "
        "assert torch.equal(state, torch.get_rng_state()); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "multitask" in loaded
    assert not loaded & (HEAVY | NEIGHBOURS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_describe_every_argument_and_the_result(name):
    function = getattr(multitask, name)
    text = inspect.getdoc(function) or ""
    section, _, rest = text.partition("Parameters\n----------\n")[2].partition("\n\nReturns\n-------\n")
    described = {
        argument.strip("*, ")
        for line in section.splitlines()
        if not line.startswith(" ")
        for argument in line.partition(" : ")[0].split(", ")
    }
    assert described == set(inspect.signature(function).parameters)
    assert rest


def test_no_file_is_longer_than_500_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert not {name: n for name, n in lengths.items() if n > 500}
