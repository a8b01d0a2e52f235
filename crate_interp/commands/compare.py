"""Runs beside each other: one table of their numbers, and of the differences between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp.commands import find_commands
from crate_interp.commands.comparison_table import (
    FORMATS,
    Comparison,
    Difference,
    Line,
    plain_table,
)
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.runs.command import Command

if TYPE_CHECKING:
    from crate_interp.evaluation import Bootstrap
    from crate_interp.runs.finished_run import Comparable, FinishedRun

__all__ = ["Compare", "paired_scores", "read_run"]

# Settings that follow from the model, or that change no number.
_OF_THE_MODEL = {"model", "model_args", "weights_sha256", "mean", "std", "batch_size"}
_OF_THE_PLACE = {"folders", "file"}  # of the images and the ground truth
_ALIKE = {"maskcut", "segment", "evaluate"}  # commands whose numbers are AP of boxes and masks
_LISTED = 4  # numbers in a message


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Put runs into one table, with differences and intervals."""

    group: ClassVar[str] = "score"

    runs: list[Path] = option(
        "run folders of maskcut, segment, benchmark or train, all of one kind; or files that "
        "evaluate or evaluate-classifier wrote; the others are compared with the first",
        positional=True,
        several=Path,
    )
    output: Path | None = option(
        f"the table, NAME.{', NAME.'.join(FORMATS)} (default: print it)", None, presentation=True
    )

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix.removeprefix(".") not in FORMATS:
            raise InputError(
                f"{self.output}: expected a name ending in .{', .'.join(FORMATS)}, found another"
            )

    def run(self) -> int:
        """Write the table.

        Raises:
            InputError: A run cannot be compared: it is none, has not come to its end, is running,
                or has no number, or no image, in common with the first.
        """
        from crate_interp.runs.number_files import write_file

        comparison = _compare([read_run(place) for place in self.runs])
        if self.output is None:
            print(plain_table(comparison), end="")
            return 0
        write_file(self.output, FORMATS[self.output.suffix.removeprefix(".")](comparison))
        print(self.output)
        return 0


def read_run(place: Path) -> tuple[FinishedRun, Comparable]:
    """Read a finished run, and the numbers that its command gives.

    Args:
        place: Folder of the run, or the file that its command wrote.

    Raises:
        InputError: There is no finished run of a command.
    """
    from crate_interp.runs.finished_run import opened_run

    with opened_run(place) as run:
        commands = find_commands()
        if run.command not in commands:
            raise InputError(f"{place}: expected a run of a command, found {shorten(run.command)}")
        return run, commands[run.command].load().compared(run)


def _compare(runs: Sequence[tuple[FinishedRun, Comparable]]) -> Comparison:
    (first, first_numbers), *others = runs
    metrics = list(first_numbers.metrics)
    for run, numbers in others:
        metrics = [name for name in metrics if name in numbers.metrics]
        alike = run.command == first.command or {run.command, first.command} <= _ALIKE
        if not alike or not metrics:
            raise InputError(
                f"{run.place}: expected numbers in common with {first.place}, a run of "
                f"{first.command} ({_listed(first_numbers)}), found a run of {run.command} "
                f"({_listed(numbers)})"
            )
    if not metrics:
        raise InputError(f"{first.place}: expected a run with a score, found none")
    lines, notes = [], []
    names = _names(runs)
    for (run, numbers), name in zip(runs, names, strict=True):
        differences: dict[str, Difference] = {}
        if run is not first:
            notes += [f"{name}: {words}" for words in _other_settings(first, run)]
            differences, words = _differences(first_numbers, numbers, metrics)
            notes.append(f"{name} minus {names[0]}: {words}")
        values = {metric: numbers.metrics[metric] for metric in metrics}
        published = {n: value for n, value in numbers.published.items() if n in metrics}
        lines.append(Line(name, values, published, numbers.source, differences))
    return Comparison(metrics, lines, notes, first_numbers.percent)


def _listed(numbers: Comparable) -> str:
    names = list(numbers.metrics)
    return ", ".join([*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])]) or "no numbers"


def _differences(
    first: Comparable, other: Comparable, metrics: Sequence[str]
) -> tuple[dict[str, Difference], str]:
    """Differences of a run to the first one, with intervals where the images of both are known."""
    from crate_interp.runs.finished_run import is_defined

    resampled = paired_scores(first, other)
    if resampled is None:
        differences = {
            name: Difference(other.metrics[name] - first.metrics[name])
            for name in metrics
            if is_defined(first.metrics[name]) and is_defined(other.metrics[name])
        }
        return differences, "no intervals, as the runs keep no numbers of single images"
    common = first.records.keys() & other.records.keys()
    differences = {}
    for name in metrics:
        one, two = (of_run.get(name) for of_run in resampled)
        if one is None or two is None or not (is_defined(one.score) and is_defined(two.score)):
            continue
        difference = two - one
        differences[name] = Difference(difference.score, difference.interval())
    every = len(common) == len(first.records) == len(other.records)
    words = "all" if every else f"of {len(first.records)} and {len(other.records)}"
    return differences, (
        f"95 % intervals of {len(common)} images in common ({words}), resampled 2,000 times"
    )


def paired_scores(
    first: Comparable, other: Comparable
) -> tuple[Mapping[str, Bootstrap], Mapping[str, Bootstrap]] | None:
    """Score two runs on resamples of the images that both have.

    Args:
        first: Numbers of a run.
        other: Numbers of another one of the same kind.

    Returns:
        Scores of each by name; `None` where the runs keep no numbers of single images.

    Raises:
        InputError: The runs have no image in common.
    """
    if not first.records or not other.records or first.bootstrap is None:
        return None
    common = [name for name in first.records if name in other.records]
    if not common:
        raise InputError(
            f"compare: expected images in common, found {len(first.records)} and "
            f"{len(other.records)} images and none of one name"
        )
    of_first, of_other = (
        first.bootstrap([numbers.records[name] for name in common]) for numbers in (first, other)
    )
    return of_first, of_other


def _names(runs: Sequence[tuple[FinishedRun, Comparable]]) -> list[str]:
    """Model of each run; with its folder, where several are of one model."""
    models = [str(run.settings.get("model", run.place.name)) for run, _ in runs]
    names = [
        f"{model} ({run.place.name})" if models.count(model) > 1 else model
        for model, (run, _) in zip(models, runs, strict=True)
    ]
    if len(set(names)) == len(names):
        return names
    return [f"{model} ({run.place})" for model, (run, _) in zip(models, runs, strict=True)]


def _other_settings(first: FinishedRun, other: FinishedRun) -> Iterator[str]:
    """Say in words which settings differ, beside those that are the model's own."""
    of_first, of_other = (dict(_flat(_compared_settings(run))) for run in (first, other))
    differing = [
        f"{name} is {shorten(of_other.get(name))}, not {shorten(of_first.get(name))}"
        for name in dict.fromkeys([*of_first, *of_other])
        if of_first.get(name) != of_other.get(name)
    ]
    if differing:
        yield f"other settings than the first run: {'; '.join(differing)}"


def _compared_settings(run: FinishedRun) -> dict[str, Any]:
    truth = run.summary.get("ground_truth")
    settings = {name: value for name, value in run.settings.items() if name not in _OF_THE_MODEL}
    return {**settings, "ground truth": truth} if isinstance(truth, Mapping) else settings


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and not before:
            yield from _flat(value, f"{name} ")
        elif not before or name not in _OF_THE_PLACE:
            yield f"{before}{name}", value
