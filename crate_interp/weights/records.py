"""Record of the model in one of our weight files, in the metadata of its safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.files import parse_json_as
from crate_interp.weights.model_arguments import check_arguments

__all__ = ["ModelRecord", "checked_statistics"]

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelRecord:
    """Name, sizes and input statistics of a model.

    Attributes:
        model: `architecture.tag`.
        model_args: Keyword arguments that differ from the named model's: sizes alone.
        num_classes: Number of outputs of the head, 0 without one.
        mean: Mean of RGB in [0, 1], subtracted from the input.
        std: Standard deviation of RGB in [0, 1], which the input is divided by.
    """

    model: str
    model_args: Mapping[str, Any]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> ModelRecord | None:
        """Read the record of a file from its metadata, `None` if it has none.

        Raises:
            InputError: There is a record, but not a whole one, or one with other arguments than
                sizes in their ranges.
        """
        if not {"model", "model_args"} <= metadata.keys():
            return None  # another program's file; PyTorch files may have a `model` beside weights

        def field(name: str, kind: Any) -> Any:
            if name not in metadata:
                raise InputError(f"expected {name}, found none")
            return parse_json_as(metadata[name], kind, name)

        record = cls(
            model=metadata["model"],
            model_args=field("model_args", dict[str, Any]),
            num_classes=field("num_classes", int),
            mean=checked_statistics("mean", field("mean", _Triple)),
            std=checked_statistics("std", field("std", _Triple)),
        )
        sizes = {**record.model_args, "num_classes": record.num_classes}
        check_arguments(sizes, "its model", plain=True)
        return record

    def to_metadata(self) -> dict[str, str]:
        """Write the record as safetensors metadata: texts, all but the model's name in JSON."""
        fields = {**vars(self), "model_args": dict(self.model_args)}
        return {key: v if key == "model" else json.dumps(v) for key, v in fields.items()}


def checked_statistics(name: str, values: Any) -> tuple[float, ...]:
    """Check a `mean` or `std` of RGB in [0, 1].

    Raises:
        InputError: It is not three numbers, those of `std` above 0.
    """
    lowest = 1e-6 if name == "std" else -10.0
    if (
        not isinstance(values, list | tuple)
        or len(values) != 3
        or not all(isinstance(v, int | float) and lowest <= v <= 10 for v in values)
    ):
        raise InputError(
            f"{name}: expected three numbers{' above 0' if name == 'std' else ''}, for colours in "
            f"[0, 1], found {shorten(values)}"
        )
    return tuple(map(float, values))
