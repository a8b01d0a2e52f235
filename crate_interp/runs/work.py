"""The frame of every command over images: it opens, observes, keeps, resumes, concludes, writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from crate_interp.data import ImageSet
from crate_interp.errors import InputError, counted
from crate_interp.runs.engines import Engine, opened_engines
from crate_interp.runs.figure_files import list_files
from crate_interp.runs.inference import peak_memory_mb
from crate_interp.runs.output_files import write_output
from crate_interp.runs.outputs import Conclusion, Drawing, Json, Text
from crate_interp.runs.provenance import default_output, describe_images
from crate_interp.runs.report import run_page
from crate_interp.runs.run import Run
from crate_interp.runs.run_folder import open_run_folder

if TYPE_CHECKING:
    from crate_interp.runs.command import ImageCommand

__all__ = ["work_off"]

_LISTED = 4  # files of numbers that are named


def work_off(command: ImageCommand) -> int:
    """Work off the images of a command, or go on with a stopped run, and write its conclusion.

    Returns:
        0, or 1 if an image failed, which is named.

    Raises:
        InputError: An option, the model or the images cannot be used; nothing can be concluded, as
            every image failed; a file cannot be written.
    """
    command.check()
    images = command.open_images()
    parts = command.parts()
    with ExitStack() as folders, opened_engines(command) as engine_of:
        runs: list[Run] = []
        for number, part in enumerate(parts):
            with engine_of(part) as engine:
                run = _start(part, images, str(number) if len(parts) > 1 else "", folders, engine)
                runs.append(run)
                started = time.perf_counter()
                part.collect(run)
                run.this_time = _this_time(run, time.perf_counter() - started)
            if not run.entries and not command.run_folder:
                raise InputError(
                    f"{images.name}: expected an image or more that can be used, found none: none "
                    f"of the {len(images)} images could be read"
                )
            if run.reading.pictures and not run.pictured and not command.run_folder:
                raise InputError(
                    f"{images.name}: the first {run.reading.pictures} images, which the figure "
                    "shows, all failed; leave them out"
                )
        first = runs[0]
        first.parts = runs
        _write(first, command.conclude(first))
    return 1 if any(run.failed for run in runs) else 0


def _start(
    command: ImageCommand, images: ImageSet, part: str, folders: ExitStack, engine: Engine
) -> Run:
    described = describe_images(images)
    observer, provenance = engine.load(described["folders"])
    settings = provenance["settings"]
    # Commands over files have the names that were given there already.
    settings["image_set" if "images" in settings else "images"] = described
    output = command.output
    if output is None:
        output = default_output(command.default_name(), command.model, images)
    run = Run(command, observer, images, output, provenance, engine)
    run.reading = command.reading(run)
    provenance["settings"] |= run.reading.settings
    place = command.place_of_run(output)
    place = place.with_name(f"{place.name}{part}")
    opened = open_run_folder(place, provenance["settings"], command.entry, command.run_folder)
    run.folder = folders.enter_context(opened)
    return run


def _write(run: Run, conclusion: Conclusion) -> None:
    """Write the files of a conclusion, and say which."""
    command, output = run.command, run.output
    folder = output.parent if command.output_is_file else output
    provenance = run.provenance
    if command.several_models:
        provenance = {"models": [part.provenance for part in run.parts]}
    if conclusion.text:
        print(conclusion.text)
    numbers = []
    for item in conclusion.outputs:
        if isinstance(item, Json) and command.run_folder:
            run.folder.write_json(f"{item.name}.json", item.content)
            continue
        if isinstance(item, Text) and command.run_folder:
            run.folder.write_file(item.name, item.content)
            continue
        files = write_output(item, folder, provenance, command)
        if isinstance(item, Drawing) and not command.output_is_file:
            print(list_files(files))
        else:
            numbers += files
    if command.run_folder:
        timing = {"seconds": _seconds(run.entries), "this_time": run.this_time}
        if command.timed:
            each = ", ".join(f"{k} {v:.3f}" for k, v in timing["seconds"]["per_image"].items())
            print(f"seconds an image: {each}")
        run.folder.write_json(
            "summary.json",
            {
                **conclusion.results,
                "failed": run.failed,
                **(timing if command.timed else {}),
                "command": command.command_name(),
                **provenance,
            },
        )
        page = run_page(run, conclusion.results, conclusion.sections, timing)
        run.folder.write_file("report.html", page)
        print(f"all numbers are in {output}; its page is {output / 'report.html'}")
    elif numbers:
        more = _more(len(numbers) - _LISTED)
        print(f"{list_files(numbers[:_LISTED])}{more}: {counted(len(run.entries), 'image')}")
    if run.failed:
        where = ": see `failed` in summary.json" if command.run_folder else ""
        print(f"{counted(len(run.failed), 'image')} failed{where}")


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _this_time(run: Run, seconds: float) -> dict[str, Any]:
    """Images, seconds and memory of this process, in a run that may have been continued."""
    return {
        "images": run.measured,
        "seconds": round(seconds, 3),
        "images_per_second": round(run.measured / seconds, 3),
        "peak_memory_mb": peak_memory_mb(run.observer.device),
    }


def _seconds(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of each stage: of all images together, of one on average, and its share of all.

    Stages overlap, so that they take longer together than the run does.
    """
    total: dict[str, float] = {}
    for entry in entries:
        for stage, seconds in entry["seconds"].items():
            total[stage] = total.get(stage, 0.0) + seconds
    count, whole = max(1, len(entries)), sum(total.values()) or 1.0
    return {
        "total": {stage: round(value, 3) for stage, value in total.items()},
        "per_image": {stage: round(value / count, 4) for stage, value in total.items()},
        "share": {stage: round(value / whole, 4) for stage, value in total.items()},
    }
