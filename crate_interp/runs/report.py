"""The page of a run, `report.html`: made of what its folder keeps, for every command alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crate_interp.visualization import Bars, Facts, PageTable, Section, Words, write_page

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["run_page"]

_MOST_FAILED = 100  # images that are listed
_FIRST = ("model", "images", "image_set", "size")  # settings that a reader asks for first


def run_page(
    run: Run, results: Mapping[str, Any], sections: Sequence[Section], timing: Mapping[str, Any]
) -> str:
    """Write the page of a run; seconds are in the section `seconds` alone.

    Args:
        run: The run.
        results: Entries of its summary.
        sections: Sections that the command makes of its results; a table of them by default.
        timing: Seconds of the stages, `seconds`, and of this process, `this_time`.
    """
    settings = run.settings
    done, failed = len(run.entries), len(run.failed)
    about = f"{done} image{'s' * (done != 1)} by crate-interp {run.command.command_name()}"
    if failed:
        about += f"; {failed} failed, see below"
    if not sections:
        sections = [Section("Results", [_table_of(results)], "results")]
    return write_page(
        f"{settings['model']} on {run.images.name}",
        about,
        [
            *sections,
            Section("Images that failed", _failures(run.failed), "failed"),
            Section("Seconds by stage", _seconds(timing), "seconds"),
            Section("What was run", [Facts(list(_facts(run)))], "run"),
        ],
    )


def _table_of(results: Mapping[str, Any]) -> PageTable:
    rows = [(name, value) for name, value in _flat(results) if value is not None]
    return PageTable(["", "value"], [(name, _number(value)) for name, value in rows])


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}: ")
        else:
            yield f"{before}{name}", value


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _failures(failed: Sequence[Mapping[str, Any]]) -> list[Facts | Words]:
    listed = [(entry["file_name"], entry["reason"]) for entry in failed[:_MOST_FAILED]]
    if not listed:
        return []
    more = len(failed) - len(listed)
    words = [Words(f"and {more} more: see `failed` in summary.json")] if more else []
    return [Facts(listed), *words]


def _seconds(timing: Mapping[str, Any]) -> list[Bars | Words]:
    """Bars of the stages; none without an image."""
    if not timing["seconds"]["share"]:
        return []
    seconds, this_time = timing["seconds"], timing["this_time"]
    rows = [
        (
            stage,
            share,
            f"{seconds['per_image'][stage]:.3f} s, {100 * share:.0f} %",
        )
        for stage, share in seconds["share"].items()
    ]
    memory = ", ".join(
        f"{place} {amount} MB"
        for place, amount in this_time["peak_memory_mb"].items()
        if amount is not None
    )
    words = "Seconds are those of an image, on average; stages overlap."
    if this_time["images"]:
        words += (
            f" The last process took {this_time['seconds']:.1f} s for {this_time['images']} "
            f"images, {this_time['images_per_second']:.2f} a second."
        )
        words += f" Memory at most: {memory}." if memory else ""
    return [Bars(rows), Words(words)]


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """Model, data, settings and versions, by name; what is not set is left out."""
    settings, weights = run.settings, run.provenance["weights"]
    yield "command", f"crate-interp {run.command.command_name()}"
    for name in (*_FIRST, *(name for name in settings if name not in _FIRST)):
        value = settings.get(name)
        if value is None or value in ({}, []):
            continue
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, content in inner:
            yield f"{name} {part}".rstrip().replace("_", " "), _plain(content)
    yield "weights", str(weights["file"])
    yield "versions", ", ".join(f"{name} {v}" for name, v in run.provenance["versions"].items())
