"""Views: what one is, what it answers, and the table of all of them.

A view is one file of `crate_interp/explorer/views/`, or of an installed package: a frozen dataclass
whose fields are its controls on the page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp.options import check_ranges
from crate_interp.plugins import Table

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from crate_interp.explorer.scene import Scene
    from crate_interp.visualization.page import Part

__all__ = ["VIEWS", "Answer", "Shown", "View", "same_options"]


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of an answer.

    Attributes:
        words: Words below it.
        rgb: Pixels in [0, 255].
        covers: Whether it covers the whole picture, so that a click on it chooses a patch.
        below: Pixels of a picture below it that belongs to it.
    """

    words: str
    rgb: UInt8[np.ndarray, "H W 3"]
    covers: bool = True
    below: UInt8[np.ndarray, "H W 3"] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a view has to say.

    Attributes:
        text: One or two sentences above all.
        pictures: Pictures, from left to right.
        parts: Tables and charts below them.
        numbers: Numbers that are shown, by the names that the command's files have.
        masks: Masks in pixels of the picture, for a file; `None` for a view without masks.
        command: Arguments of the command that makes the same; empty where there is none.
        note: What has to be known of the command.
    """

    text: str
    pictures: Sequence[Shown] = ()
    parts: Sequence[Part] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    masks: Bool[np.ndarray, "M H W"] | None = None
    command: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """A way to look at a picture with a model; its fields are options, which become controls.

    Attributes:
        title: Name on the page.
        summary: Sentence below the name.
        place: Order on the page; those of equal place stand by name.
        uses_patch: Whether the answer depends on the patch that was clicked.
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    place: ClassVar[int] = 100
    uses_patch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def kinds(cls) -> Mapping[str, type[View]]:
        """Classes of the view by name, where a choice decides which options there are."""
        return {"": cls}

    @abstractmethod
    def look(self, scene: Scene) -> Answer:
        """Look at a picture.

        Raises:
            InputError: The model lacks what the view reads, or an option does not fit.
        """


VIEWS: Table[View] = Table("crate_interp.explorer.views", "explorer_views", View, "view")


def same_options(
    command: str, view: View, scene: Scene, picture: Sequence[str] = (), **others: Any
) -> list[str]:
    """Write the arguments of a command whose options have the names of a view's.

    Args:
        command: Name of the command.
        view: The view; options that are not at their default are written.
        scene: What it looks at.
        picture: Option that takes the picture; none where it is an argument by itself.
        **others: Options of the command alone; `None` for those that are left out.

    Returns:
        Arguments, the name of the command first. The picture is named by its file name.
    """
    chosen = {
        own.name: getattr(view, own.name)
        for own in fields(view)
        if getattr(view, own.name) != own.default
    }
    common: dict[str, Any] = {"model": scene.model.name}
    if scene.size is not None:
        common["size"] = scene.observer.input_hw[0]
    name = scene.picture.name
    arguments = [command, *picture, f"./{name}" if name.startswith("-") else name]
    for name, value in {**common, **chosen, **others}.items():
        option = "--" + name.rstrip("_").replace("_", "-")
        if value is True:
            arguments.append(option)
        elif value is not None and value is not False:
            arguments += [option, str(value)]
    return arguments
