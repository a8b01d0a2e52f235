"""Commands over image files that compare models, which are worked off one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from crate_interp import weights
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.runs.command import ImageFilesCommand

__all__ = ["SeveralModelsCommand"]


@dataclass(frozen=True, kw_only=True)
class SeveralModelsCommand(ImageFilesCommand):
    """A command over image files whose `--model` takes several names."""

    several_models: ClassVar[bool] = True

    model: str = option("names of one model or more, separated by commas; see `models`")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.model.split(",")
        if not all(names):
            raise InputError(
                f"model: expected names separated by commas, found {shorten(self.model)}"
            )
        if len(names) > 1 and (self.model_args or self.weights not in (None, Path("random"))):
            raise InputError("--model-args and a file of --weights go with one model only")

    def check(self) -> None:
        """Refuse the last name before the first model has run."""
        from crate_interp.runs.inference import describe_model

        super().check()
        for part in self.parts():
            if not weights.names_a_file(part.model):
                weights.create_on_meta(weights.resolve_name(part.model), **part.model_args)
            elif not Path(part.model).is_file():
                raise InputError(f"{part.model}: no such weight file")
        names = [describe_model(part.model, part.weights) for part in self.parts()]
        if len(set(names)) < len(names):
            raise InputError(f"model: expected each model once, found {', '.join(names)}")

    def parts(self) -> Sequence[SeveralModelsCommand]:
        """One command for each model."""
        return [replace(self, model=name) for name in self.model.split(",")]
