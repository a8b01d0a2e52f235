"""Records of a run's recipe and data, without where data lay on the machine that trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file, read_json_as, write_whole
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe

__all__ = ["data_root_of", "keep_data_record", "record_of_recipe"]


def record_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Give the keys of a recipe as JSON has them, for a record that goes to other machines.

    Absolute paths of data keep their last part, relative ones everything; `data_root` is `None`.
    """
    record = {**dataclasses.asdict(recipe), "data_root": None}
    record["probe_set"] = _without_folders(recipe.probe_set)
    if recipe.exclude is not None:
        record["exclude"] = Path(recipe.exclude).name  # it lies beside the recipe
    if isinstance(recipe.data, str):
        record["data"] = _without_folders(recipe.data)
    else:
        record["data"] = [
            {
                **{key: value for key, value in vars(source).items() if value is not None},
                "data": _without_folders(source.data),
            }
            for source in recipe.data
        ]
    return record


def keep_data_record(folder: Path, objective: Objective, step: int) -> None:
    """Write what data a run has into its folder; refuse to go on with other data.

    Args:
        folder: Folder of the run.
        objective: Objective of the run, with its data; scenes have no record.
        step: Number of finished updates; before the first, the data may still change.

    Raises:
        InputError: The finished updates had other pictures, or the record is damaged.
    """
    path, record = folder / "data.json", objective.data.record
    if record is None:
        return
    if step and path.exists():
        stored = read_json_as(path, dict[str, Any])
        differing = [key for key in record if stored.get(key) != record[key]]
        if differing:
            changes = "; ".join(
                f"{key} was {shorten(stored.get(key))}, now {shorten(record[key])}"
                for key in differing
            )
            raise InputError(f"{path}: a run on other data ({changes}); choose another --output")
    with write_whole(path, "w") as file:
        content = {**record, "data_root": objective.recipe.data_root}
        file.write(json.dumps(content, indent=1) + "\n")


def data_root_of(folder: Path) -> list[str]:
    """Give the change of a run's recipe that says where its data lay last; none if unknown."""
    path = folder / "data.json"
    root = read_json_as(path, dict[str, Any]).get("data_root") if is_file(path) else None
    return [] if root is None else [f"data_root={json.dumps(root)}"]


def _without_folders(place: str) -> str:
    """The last part of an absolute path, also behind `wds/`; all of any other text."""
    kind, _, path = place.partition("/")
    if kind.lower() == "wds":
        return f"{kind}/{_without_folders(path)}"
    return Path(place).name if Path(place).is_absolute() else place
