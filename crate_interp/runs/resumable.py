"""A run over images that is kept image by image: its settings, its pass, its names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crate_interp.config import FIGURE_OPTIONS, ModelConfig
from crate_interp.data import ImageRecord, ImageSet, ResizedImage
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.files import checksum_of
from crate_interp.hooks import Observer, Site
from crate_interp.runs.inference import batch_size_of, describe_model, statistics_of
from crate_interp.runs.number_files import versions
from crate_interp.runs.observation import observe
from crate_interp.runs.run_folder import RunFolder
from crate_interp.structures import Activations

__all__ = [
    "default_output",
    "describe_images",
    "failure_of",
    "finish_run",
    "observe_into",
    "settings_of",
]

# Makes the journal's entry of an image, but for its id, name and seconds.
Entry = Callable[[ImageRecord, ResizedImage, Activations, StageClock], Mapping[str, Any]]


def settings_of(
    config: ModelConfig,
    observer: Observer,
    images: ImageSet,
    weights: Mapping[str, Any],
    presentation: Collection[str],
) -> dict[str, Any]:
    """All that decides the results; a run folder takes only runs that agree in it.

    Args:
        config: The options.
        observer: With the model.
        images: The images.
        weights: As `describe_weights` has it.
        presentation: Options that change where a run writes, or what it shows, not what it finds.
    """
    shown = {*presentation, *FIGURE_OPTIONS}
    settings = {name: value for name, value in asdict(config).items() if name not in shown}
    return {
        **settings,
        "model": describe_model(config.model, config.weights),
        "weights_sha256": weights["sha256"],
        "size": observer.size,
        "device": observer.device.type,
        "precision": observer.precision,
        **statistics_of(observer.model),
        "batch_size": batch_size_of(config.batch_size, observer),
        "images": describe_images(images),
    }


def describe_images(images: ImageSet) -> dict[str, Any]:
    """Tell which images a run is of, for its settings."""
    names = json.dumps([(record.image_id, record.file_name) for record in images.records])
    return {
        "name": images.name,
        "count": len(images.records),
        "folders": sorted({str(record.path.parent.resolve()) for record in images.records}),
        "sha256_of_names": checksum_of(names.encode()),
    }


def default_output(command: str, config: ModelConfig, images: ImageSet) -> Path:
    """Name the run folder of a command that was given none."""
    name = f"{command}-{Path(config.model).name}-{images.name}"
    return Path("runs") / re.sub(r"[^\w.-]+", "-", name)


def observe_into(
    folder: RunFolder,
    observer: Observer,
    records: Sequence[ImageRecord],
    wanted: tuple[Sequence[Site | str], Sequence[int]],
    entry_of: Entry,
    config: ModelConfig,
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Put the images that the journal lacks through a model, and add what becomes of each.

    Args:
        folder: Of the run.
        observer: With the model.
        records: All images of the run.
        wanted: Sites and blocks to record.
        entry_of: Makes what the journal keeps of an image.
        config: Batch size and workers.

    Returns:
        The journal's entries of the images, in their order, and the failures of this time.

    Raises:
        InputError: As `observe`, or the journal cannot be written.
    """
    done, failed = folder.finished(), []
    with closing(observe(observer, records, *wanted, entry_of, config, done)) as outcomes:
        for image in outcomes:
            if image.error is not None:
                failed.append(failure_of(image.record, image.error))
            elif image.result is not None:
                known = {"image_id": image.record.image_id, "file_name": image.record.file_name}
                folder.append({**known, **image.result, "seconds": image.seconds})
    journal = folder.finished()
    ids = [record.image_id for record in records]
    return [journal[image_id] for image_id in ids if image_id in journal], failed


def failure_of(record: ImageRecord, error: InputError) -> dict[str, Any]:
    """Describe an image that failed, for a summary."""
    return {"image_id": record.image_id, "file_name": record.file_name, "reason": str(error)}


def finish_run(
    folder: RunFolder,
    results: Mapping[str, Any],
    failed: Sequence[Mapping[str, Any]],
    weights: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> int:
    """Write `summary.json`, tell of failures, and give the exit code: 1 if there was one."""
    folder.write_json(
        "summary.json",
        {
            **results,
            "failed": failed,
            "weights": weights,
            "settings": settings,
            "versions": versions(),
        },
    )
    if failed:
        print(f"{len(failed)} images failed: see `failed` in summary.json")
    print(f"all numbers are in {folder.path}")
    return 1 if failed else 0
