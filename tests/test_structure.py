"""The packages as a whole: imports without cycles or heavy modules, complete docstrings, files read in a sitting."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsa_analysis
import multitask

ROOT = Path(multitask.__file__).parents[1]
PACKAGES = ("dsa_analysis", "multitask", "workbench")
HEAVY = {"h5py", "matplotlib", "pandas", "scipy.stats", "scipy.io", "scipy.ndimage", "seaborn", "sklearn", "xarray"}
FUNCTIONS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (dsa_analysis, multitask)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
}


def modules(*packages: str) -> dict[str, Path]:
    """All modules of some packages, by name."""
    paths = [path for package in packages for path in ROOT.glob(f"{package}/**/*.py")]
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the packages that a file imports when it runs, also in functions; not those for type hints alone."""
    tree = ast.parse(path.read_text())
    for_hints = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_hints:
            continue
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
    known = modules(*PACKAGES)
    edges = {name: set(imported(path, known)) - {name} for name, path in known.items()}
    assert len(edges) > 80
    while leaves := [name for name, targets in edges.items() if not targets]:
        edges = {name: targets.difference(leaves) for name, targets in edges.items() if targets}
    assert not edges, f"import cycle among {sorted(edges)}"


@pytest.mark.parametrize("package", ["dsa_analysis", "multitask"])
def test_importing_a_package_loads_nothing_heavy_no_neighbour_and_draws_no_random_number(package):
    code = (
        f"import sys, torch; before = set(sys.modules); state = torch.get_rng_state(); import {package}; "
        "assert torch.equal(state, torch.get_rng_state()); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert package in loaded
    assert not loaded & (HEAVY | set(PACKAGES) - {package})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_describe_every_argument_and_the_result(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    section, _, rest = text.partition("Parameters\n----------\n")[2].partition("\n\nReturns\n-------\n")
    described = {
        argument.strip("*, ")
        for line in section.splitlines()
        if line and not line.startswith(" ")
        for argument in line.partition(" : ")[0].split(", ")
    }
    assert described == set(inspect.signature(function).parameters)
    assert rest


def test_no_file_is_longer_than_500_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(*PACKAGES, "tests").items()}
    assert not {name: n for name, n in lengths.items() if n > 500}
