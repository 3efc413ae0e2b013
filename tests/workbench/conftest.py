"""A complete config.yaml that a test may spoil: the project's own, so that tests follow when it is tuned."""

from pathlib import Path

import pytest

from workbench.settings import Settings, load_settings

COMMITTED = Path(__file__).parents[2] / "config.yaml"


class Config:
    """A copy of config.yaml on disk, changed line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = COMMITTED.read_text().splitlines()
        self.replace("device", "device: cpu")
        self.replace("engine.kind", "kind: serial")
        self.save()

    def line(self, key: str) -> int:
        """The number of the line a key stands on; the first such key of the section where it begins 'section.'"""
        section, _, name = key.rpartition(".")
        start = self.lines.index(f"{section}:") if section else 0
        return next(n for n, text in enumerate(self.lines[start:], start + 1) if text.lstrip().startswith(f"{name}:"))

    def replace(self, key: str, *new: str) -> int:
        """Put lines in the place of a key's line, indented as it was; the number of the first of them."""
        n = self.line(key)
        old = self.lines[n - 1]
        indent = " " * (len(old) - len(old.lstrip()))
        self.lines[n - 1 : n] = [indent + text for text in new]
        self.save()
        return n

    def save(self) -> None:
        self.path.write_text("\n".join(self.lines) + "\n")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "config.yaml")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose results go to a temporary folder."""
    return load_settings(Config(tmp_path_factory.mktemp("settings") / "config.yaml").path)
