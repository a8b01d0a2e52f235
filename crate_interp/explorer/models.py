"""Models of the explorer: a list that is fixed at the start, each loaded when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from crate_interp.errors import InputError, shorten
from crate_interp.hooks import Observer, Site, available_sites, blocks_of, count_units
from crate_interp.models.backbones import embedding_of, patch_hw_of
from crate_interp.runs.class_names import class_names_of
from crate_interp.runs.inference import load_observer
from crate_interp.runs.options import ModelOptions

__all__ = ["SIZES", "Models", "ShownModel"]

SIZES = (96, 128, 192, 224, 256, 320, 384, 448, 512)  # sides of the input that a page offers


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A model that is looked into.

    Attributes:
        name: Name, as the user gave it.
        observer: The model at its own size.
        class_names: Names of its classes; `None` where they are not known.
    """

    name: str
    observer: Observer
    class_names: list[str] | None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(blocks_of(self.observer.model))

    @property
    def num_heads(self) -> int:
        """Number of heads of the last block; 0 where it has none that can be told apart."""
        if Site.HEADS not in available_sites(self.observer.model, -1):
            return 0
        return count_units(self.observer.model, Site.HEADS, -1)

    def at(self, size: int | None) -> Observer:
        """Give the model at a side of its input, rounded to whole patches.

        Args:
            size: Side, pixels; `None` for the model's own.
        """
        if size is None:
            return self.observer
        patch = patch_hw_of(embedding_of(self.observer.model))[0]
        return replace(self.observer, size=max(1, round(size / patch)) * patch)


@dataclass(eq=False)
class Models:
    """The models that a page can show; no other one can be named.

    Args:
        options: Options of each model.

    Raises:
        InputError: There is no model, or one twice.
    """

    options: Sequence[ModelOptions]
    _loaded: dict[str, ShownModel] = field(init=False, repr=False, default_factory=dict)
    _lock: Lock = field(init=False, repr=False, default_factory=Lock)

    def __post_init__(self) -> None:
        names = self.names()
        if not names or len(set(names)) < len(names):
            raise InputError(f"model: expected one or more, each once, found {' '.join(names)}")

    def names(self) -> list[str]:
        """Names of the models for the page; of a file, its name without the folder."""
        return [_shown(options.model) for options in self.options]

    def get(self, name: str) -> ShownModel:
        """Give a model, loaded now if it is not yet.

        Raises:
            InputError: It is not in the list, or cannot be loaded.
        """
        if name not in self.names():
            raise InputError(
                f"model: expected one of {', '.join(self.names())}, found {shorten(name)}"
            )
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = _load(name, self.options[self.names().index(name)])
            return self._loaded[name]


def _shown(model: str) -> str:
    return model.replace("\\", "/").rpartition("/")[2]


def _load(name: str, options: ModelOptions) -> ShownModel:
    observer = load_observer(options)
    classes = int(getattr(observer.model, "num_classes", 0))
    return ShownModel(name, observer, class_names_of(options, classes))
