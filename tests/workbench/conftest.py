"""A complete config.yaml that a test may spoil: the project's own, so that tests follow when it is tuned."""

from pathlib import Path

import pytest
import yaml

from workbench.settings import Settings, load_settings

COMMITTED = Path(__file__).parents[2] / "config.yaml"


class Config:
    """A copy of config.yaml on disk, changed key by key: "lorenz.dsa.rank" is the rank in the dsa of lorenz.

    Every method but `line` writes the file and returns the line of the key, counted from 1.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, COMMITTED.read_text()
        self.set("device", "cpu")
        self.set("engine.kind", "serial")

    def line(self, key: str) -> int:
        """The line a key stands on."""
        return self._pair(key)[0].start_mark.line + 1

    def set(self, key: str, value: str) -> int:
        """Write a value as YAML in the place of the old one. A key that is not there is added to its section."""
        section, _, name = key.rpartition(".")
        node = self._pair(section)[1] if section else self._root()
        if all(own.value != name for own, _ in node.value):
            if node.value and not node.flow_style:
                self._write(node.value[0][0].start_mark.index, f"{name}: {value}\n{' ' * node.start_mark.column}")
            else:
                self._write(node.start_mark.index + 1, f"{name}: {value}{', ' if node.value else ''}")
            return self.line(key)
        own, old = self._pair(key)
        first, last = old.start_mark.index, old.end_mark.index
        self._write(first, value, first + len(self.text[first:last].rstrip()))
        return own.start_mark.line + 1

    def rename(self, key: str, name: str) -> int:
        own = self._pair(key)[0]
        self._write(own.start_mark.index, name, own.end_mark.index)
        return own.start_mark.line + 1

    def remove(self, key: str) -> int:
        """Take out the line of a key; its value must stand on it."""
        n = self.line(key)
        lines = self.text.splitlines(keepends=True)
        del lines[n - 1]
        self.text = "".join(lines)
        self._write(0, "")
        return n

    def insert(self, after: str, *lines: str) -> int:
        """Put lines below that of a key, indented like it; the number of the first of them."""
        own = self._pair(after)[0]
        end = self.text.index("\n", own.start_mark.index) + 1
        self._write(end, "".join(" " * own.start_mark.column + line + "\n" for line in lines))
        return own.start_mark.line + 2

    def _root(self) -> yaml.MappingNode:
        return yaml.compose(self.text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))

    def _pair(self, key: str) -> tuple[yaml.Node, yaml.Node]:
        """The nodes of a key and of its value."""
        node = self._root()
        for name in key.split("."):
            own, node = next(pair for pair in node.value if pair[0].value == name)
        return own, node

    def _write(self, start: int, new: str, end: int | None = None) -> None:
        self.text = self.text[:start] + new + self.text[start if end is None else end :]
        self.path.write_text(self.text)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "config.yaml")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose results go to a temporary folder."""
    return load_settings(Config(tmp_path_factory.mktemp("settings") / "config.yaml").path)
