"""Images that the results of a run of `maskcut` are of, as its folder tells."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from crate_interp.data.coco import images_by_name
from crate_interp.data.coco_files import CocoFile, Id, Side
from crate_interp.errors import InputError, shorten
from crate_interp.evaluation.coco_input import ResultsFile
from crate_interp.files import read_json_as

__all__ = ["RunImages", "find_run", "with_ids_of"]

_logger = logging.getLogger(__name__)

FILES = ("settings.json", "summary.json", "annotations.json")  # beside results.json


class _Finished(TypedDict):
    id: Id
    file_name: str
    height: Side
    width: Side


class _Failed(TypedDict):
    image_id: Id
    file_name: str


class _Annotations(TypedDict):
    images: list[_Finished]


class _Summary(TypedDict):
    average_precision: dict[str, Any]
    failed: list[_Failed]


@dataclass(frozen=True)
class RunImages:
    """The images of a run.

    Attributes:
        folder: Folder of the run.
        names: `file_name` of every image by its id, also of those that failed.
        sizes: Height and width of the other images by id, pixels.
        annotated: Whether there were annotations, which gave the ids; else the run counted them.
    """

    folder: Path
    names: Mapping[int, str]
    sizes: Mapping[int, tuple[int, int]]
    annotated: bool


def find_run(results: Path) -> RunImages | None:
    """Read the images of the run whose `results.json` this is; `None` for a file of no run.

    Raises:
        InputError: The summary or the annotations of the run are malformed.
    """
    folder = results.parent
    if results.name != "results.json" or not all((folder / name).is_file() for name in FILES):
        return None
    summary = read_json_as(folder / "summary.json", _Summary)
    finished = read_json_as(folder / "annotations.json", _Annotations)["images"]
    names = {image["id"]: image["file_name"] for image in finished}
    return RunImages(
        folder,
        {image["image_id"]: image["file_name"] for image in summary["failed"]} | names,
        {image["id"]: (image["height"], image["width"]) for image in finished},
        bool(summary["average_precision"]),
    )


def with_ids_of(
    truth: CocoFile, of_run: RunImages, results: ResultsFile
) -> tuple[RunImages, ResultsFile]:
    """Give the images of a run without annotations the ids of a ground truth, by their file names.

    One of two names may begin with folders that the other lacks.

    Args:
        truth: The ground truth.
        of_run: The images, counted by the run.
        results: Results of the run.

    Returns:
        Both with the ids of the ground truth.

    Raises:
        InputError: An image is not in the ground truth, or there of another size, or it could be
            two of them.
    """
    entries = images_by_name(truth, truth.path)
    by_last = defaultdict(list)
    for name in entries:
        by_last[_parts(name)[-1]].append(name)
    ids: dict[int, int] = {}
    for number, name in of_run.names.items():
        fitting = [known for known in by_last[_parts(name)[-1]] if _is_end(name, known)]
        exact = [known for known in fitting if _parts(known) == _parts(name)]
        if len(exact or fitting) != 1:
            count = f"{len(fitting)} of that name" if fitting else "none"
            raise InputError(
                f"{of_run.folder}: expected the image {shorten(name)} once in {truth.path}, "
                f"found {count}"
            )
        entry = entries[(exact or fitting)[0]]
        size = (entry.get("height"), entry.get("width"))
        if size != (None, None) and of_run.sizes.get(number, size) != size:
            raise InputError(
                f"{of_run.folder}: image {shorten(name)}: expected height and width {size} of "
                f"{truth.path}, found {of_run.sizes[number]}"
            )
        ids[number] = entry["id"]
    if len(set(ids.values())) < len(ids):
        raise InputError(f"{of_run.folder}: two images are the same one of {truth.path}")
    if any(number != image_id for number, image_id in ids.items()):
        _logger.warning(
            "%s is a run without annotations, which numbered its images from 1: its %d images are "
            "matched with those of %s by file name",
            of_run.folder,
            len(ids),
            truth.path,
        )
    renamed = replace(
        of_run,
        names={ids[number]: name for number, name in of_run.names.items()},
        sizes={ids[number]: size for number, size in of_run.sizes.items()},
    )
    return renamed, ResultsFile(
        results.path, [_renumbered(entry, ids, results.path) for entry in results.entries]
    )


def _renumbered(entry: Any, ids: Mapping[int, int], path: Path) -> Any:
    if not isinstance(entry, Mapping) or type(entry.get("image_id")) is not int:
        return entry  # which is refused where results are checked
    if entry["image_id"] not in ids:
        raise InputError(
            f"{path}: image_id {shorten(entry['image_id'])} is not among the images of its run"
        )
    return {**entry, "image_id": ids[entry["image_id"]]}


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _is_end(one: str, other: str) -> bool:
    shorter, longer = sorted((_parts(one), _parts(other)), key=len)
    return longer[len(longer) - len(shorter) :] == shorter
