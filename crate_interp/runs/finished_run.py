"""What a command has left of a finished run, read back to compare it with others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as, is_file, is_folder, read_json_as

if TYPE_CHECKING:
    from crate_interp.evaluation import Bootstrap
    from crate_interp.runs.journal import Entry

__all__ = ["Comparable", "FinishedRun", "is_defined", "numbers_of", "opened_run", "split_published"]

Kind = TypeVar("Kind")

TRAINING = "train"
_FRAME = {"failed", "seconds", "this_time", "weights", "settings", "versions", "command"}


@dataclass(frozen=True)
class FinishedRun:
    """A run that has come to its end.

    Attributes:
        place: Folder of the run; or the one file that its command wrote.
        command: Name of the command.
        settings: Everything that decided its results.
        summary: Its results, as `summary.json` or the one file has them.
    """

    place: Path
    command: str
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]

    def results(self, kind: type[Kind]) -> Kind:
        """Give the results as values of a type.

        Args:
            kind: A `TypedDict` of the keys that are asked for.

        Raises:
            InputError: They are of other types.
        """
        return checked_as(self.summary, kind, f"{self.place}: results")

    def entries(self, entry: type) -> Iterator[Entry]:
        """Read what was kept of each image.

        Args:
            entry: Keys of an entry, as the command declares them.

        Raises:
            InputError: The journal cannot be read.
        """
        from crate_interp.runs.run_folder import RunFolder

        finished = RunFolder(self.place, entry).journal().finished()
        return iter(finished.of(finished))


@dataclass(frozen=True, eq=False)
class Comparable:
    """Numbers of a run, to stand beside those of others.

    Attributes:
        metrics: The numbers by name.
        percent: Whether they are shares of 1, which are written in percent.
        published: Numbers of the literature for the same model and images, by the same names.
        source: The literature.
        records: What the numbers are computed of, by the name of each image; empty if that was not
            kept.
        bootstrap: Computes the numbers of some records, and of resamples of these.
    """

    metrics: Mapping[str, float]
    percent: bool = True
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    records: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: Callable[[Sequence[Any]], Mapping[str, Bootstrap]] | None = None


def is_defined(value: float) -> bool:
    """Whether a number is defined: COCO writes -1 where there is no object, others NaN."""
    return math.isfinite(value) and value != -1


def split_published(
    published: Mapping[str, float | str] | None,
) -> tuple[dict[str, float], str]:
    """Tell published numbers from their source, which stands among them."""
    values = published or {}
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    return numbers, str(values.get("source", ""))


@contextmanager
def opened_run(place: Path) -> Iterator[FinishedRun]:
    """Open a finished run; no other process goes on with it meanwhile.

    Args:
        place: Folder of a run, or a file that a command wrote with `--output`.

    Raises:
        InputError: There is no run, it has not come to its end, or it is running.
    """
    if is_file(place):
        summary = read_json_as(place, dict[str, Any])
        yield _described(place, summary, "a file that evaluate or evaluate-classifier wrote")
        return
    if not is_folder(place):
        raise InputError(f"{place}: no such run")
    if not is_file(place / "settings.json"):
        raise InputError(f"{place}: expected the folder of a run, found no settings.json")
    from crate_interp.runs.run_folder import hold_folder

    with hold_folder(place):
        if is_file(place / "metrics.csv"):
            settings = read_json_as(place / "settings.json", dict[str, Any])
            if not is_file(place / "model.safetensors"):
                raise _unfinished(place, "model.safetensors")
            yield FinishedRun(place, TRAINING, settings, {})
            return
        if not is_file(place / "summary.json"):
            raise _unfinished(place, "summary.json")
        summary = read_json_as(place / "summary.json", dict[str, Any])
        yield _described(place / "summary.json", summary, "a summary of this version")


def numbers_of(values: Mapping[str, Any], before: str = "", depth: int = 3) -> dict[str, float]:
    """Give the numbers among the results of a command, by their places.

    Args:
        values: The results.
        before: Place of these, for those inside others.
        depth: Levels of results inside others.
    """
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if not before and name in _FRAME:
            continue
        if isinstance(value, Mapping) and depth:
            numbers |= numbers_of(value, f"{before}{name} ", depth - 1)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[f"{before}{name}"] = float(value)
    return numbers


def _described(file: Path, summary: Mapping[str, Any], expected: str) -> FinishedRun:
    command, settings = summary.get("command"), summary.get("settings")
    if not isinstance(command, str) or not isinstance(settings, dict):
        raise InputError(f"{file}: expected {expected}, found {shorten(list(summary))}")
    place = file.parent if file.name == "summary.json" else file
    return FinishedRun(place, command, settings, summary)


def _unfinished(place: Path, missing: str) -> InputError:
    return InputError(
        f"{place}: expected a finished run, found no {missing}: it was stopped, and the same "
        "command goes on"
    )
