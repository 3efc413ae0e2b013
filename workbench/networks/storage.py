"""Tables on disk, read while nothing that they depend on has changed; and the warnings raised while they were made."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed
from tqdm import tqdm

from dsa_analysis import DataError, Similarity
from dsa_analysis.display import bars_go_to
from workbench.notebooks import fingerprint, read_results, write_results

if TYPE_CHECKING:
    import pandas as pd

USUAL = ("carry nothing", "time on the last axis")  # silent relu units, and periods shorter than the number of units


class Concerns(Counter[str]):
    """Warnings by kind, and how often each was raised."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count the warnings of a block instead of showing them."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.count(str(warning.message) for warning in caught)

    def count(self, messages: Iterable[str]) -> None:
        """Count messages by kind: without the names of systems and the details, and without what is usual here."""
        kinds = (
            re.sub(r"^(\d+ of \d+ systems|system) .*?: ", "", message)
            for message in messages
            if not any(words in message for words in USUAL)
        )
        self.update(re.split(r" \(|; |: ", kind)[0] for kind in kinds)

    def in_parallel(self, work: Callable[[str], Any], items: Iterable[str], what: str, progress: bool) -> list[Any]:
        """Results of ``work`` for all items, on all workers of the active joblib backend, in the order of the items.

        Warnings raised by workers are counted too. Otherwise they would be lost.
        """
        tasks = [delayed(_with_warnings)(work, item) for item in items]
        done = tqdm(
            Parallel(return_as="generator")(tasks), desc=what, total=len(tasks), file=bars_go_to(), disable=not progress
        )
        results, messages = zip(*done, strict=True)
        self.count(message for some in messages for message in some)
        return list(results)


def _with_warnings(work: Callable[[str], Any], item: str) -> tuple[Any, list[str]]:
    """The result and the messages of the warnings raised meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work(item)
    return result, [str(warning.message) for warning in caught]


@dataclass(frozen=True)
class Shelf:
    """Tables and similarities in a folder, each with a digest of what it depends on.

    Attributes
    ----------
    folder : Path
    seed : int
        Part of the file names.
    depends_on : callable, () -> tuple
        What all tables depend on, besides their name: settings, networks, code.
    concerns : Concerns
        Warnings raised while a table was made are stored with it, and counted when it is read.
    held : dict of name -> table or similarity
        What was read or made so far, so that its warnings are counted once.
    """

    folder: Path
    seed: int
    depends_on: Callable[[], tuple[Any, ...]]
    concerns: Concerns
    held: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str, make: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
        """The stored table of this name, or a new one, which is then stored. Its index is not kept.

        ``make`` takes no other table from this shelf, whose warnings would be counted as its own.
        """
        if name not in self.held:
            self.held[name] = self._table(self._path(name), (name, *self.depends_on()), make)
        return self.held[name]

    def _table(self, path: Path, about: tuple[Any, ...], make: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
        import xarray as xr

        if (stored := read_results(path, *about)) is not None:
            self.concerns.update(json.loads(stored.attrs["concerns"]))
        else:
            before = self.concerns.copy()
            stored = xr.Dataset.from_dataframe(make().rename_axis("row"))
            stored.attrs["concerns"] = json.dumps(self.concerns - before)
            write_results(stored, path, *about)
        return stored.to_dataframe().reset_index(drop=True)

    def similarity(self, name: str, make: Callable[[], Similarity]) -> Similarity:
        """The stored similarity of this name, or a new one, which is then stored; ``make`` as in `table`."""
        if name not in self.held:
            self.held[name] = self._similarity(self._path(name), fingerprint(name, *self.depends_on()), make)
        return self.held[name]

    def _similarity(self, path: Path, about: str, make: Callable[[], Similarity]) -> Similarity:
        if path.is_file():
            with suppress(DataError):  # the file is damaged: computed again
                similarity = Similarity.load(path)
                if similarity.settings["about"] == about:
                    self.concerns.update(similarity.settings["concerns"])
                    return similarity
        before = self.concerns.copy()
        similarity = make()
        kept = {"about": about, "concerns": self.concerns - before}
        similarity = replace(similarity, settings=similarity.settings | kept)
        similarity.save(path)
        return similarity

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}_seed_{self.seed}.nc"
