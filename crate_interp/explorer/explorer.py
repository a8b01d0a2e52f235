"""What a page asks: views of pictures by models, without anything that draws the page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.explorer.controls import Control, Sizes, controls_of, view_of
from crate_interp.explorer.models import SIZES, Models
from crate_interp.explorer.passes import Passes
from crate_interp.explorer.pictures import Pictures
from crate_interp.explorer.scene import Scene, ShownAtlas
from crate_interp.explorer.selection import Selection
from crate_interp.explorer.view import VIEWS, Answer, View
from crate_interp.options.numbers import pixel_of

__all__ = ["Explorer"]

_KEPT_ANSWERS = 16


@dataclass(eq=False)
class Explorer:
    """Models, pictures and views of a page.

    Args:
        models: The models; they are loaded now, as controls end with their sizes.
        pictures: The pictures.
        atlas: An atlas of one of the models, if there is one.

    Attributes:
        controls: Controls of each view and kind.

    Raises:
        InputError: A model cannot be loaded.
    """

    models: Models
    pictures: Pictures
    atlas: ShownAtlas | None = None
    passes: Passes = field(init=False, default_factory=Passes)
    controls: dict[tuple[str, str], list[Control]] = field(init=False, repr=False)
    _answers: OrderedDict[Any, Answer] = field(init=False, repr=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        models = [self.models.get(name) for name in self.models.names()]
        sizes = Sizes(
            max(model.depth for model in models), max(model.num_heads for model in models)
        )
        self.controls = {
            (name, kind): controls_of(own, sizes)
            for name, view in self.views.items()
            for kind, own in view.kinds().items()
        }

    @cached_property
    def views(self) -> dict[str, type[View]]:
        """Views by name, in the order of the page."""
        views = {name: VIEWS[name] for name in VIEWS.names()}
        return dict(sorted(views.items(), key=lambda item: (item[1].place, item[0])))

    @property
    def start(self) -> Selection:
        """What a page shows at first."""
        view = next(iter(self.views))
        kind = next(iter(self.views[view].kinds()))
        return Selection(self.pictures.first, self.models.names()[0], view, kind)

    def checked(self, selection: Selection) -> Selection:
        """Bring the options of a selection to their types, and refuse what there is not.

        Raises:
            InputError: There is no such view, model or size, or an option does not fit.
        """
        kinds = self._kinds(selection.view)
        kind = selection.kind or next(iter(kinds))
        if kind not in kinds:
            raise _unknown("kind", kinds, kind)
        controls = {control.name: control for control in self.controls[selection.view, kind]}
        for name in selection.options:
            if name not in controls:
                raise _unknown("option", controls, name)
        options = {
            name: control.value_of(selection.options.get(name, control.default))
            for name, control in controls.items()
        }
        for model in selection.models:
            if model not in self.models.names():
                raise _unknown("model", self.models.names(), model)
        if selection.size not in (None, *SIZES):
            raise _unknown("size", map(str, SIZES), selection.size)
        if selection.patch:
            pixel_of("patch", selection.patch)
        return replace(selection, kind=kind, options=options)

    def defaults(self, selection: Selection) -> Mapping[str, Any]:
        """Values at the start of the controls of the view."""
        controls = self.controls[selection.view, selection.kind]
        return {control.name: control.default for control in controls}

    def scene(self, selection: Selection, model: str) -> Scene:
        """Give what one model looks at.

        Raises:
            InputError: There is no such picture, or the pixel lies outside it.
        """
        pixel_yx = pixel_of("patch", selection.patch) if selection.patch else None
        return Scene(
            self.pictures.get(selection.picture),
            self.models.get(model),
            self.passes,
            selection.size,
            pixel_yx,
            self.atlas,
        )

    def look(self, selection: Selection) -> list[tuple[Scene, Answer]]:
        """Look at the picture with each model.

        Args:
            selection: As `checked` gives it.

        Raises:
            InputError: The view cannot look at this picture with this model.
        """
        kind = self._kinds(selection.view)[selection.kind]
        view = view_of(kind, selection.options)
        scenes = [self.scene(selection, model) for model in selection.models]
        return [(scene, self._answer(view, scene)) for scene in scenes]

    def _answer(self, view: View, scene: Scene) -> Answer:
        """Look, unless the same was looked at lately."""
        patch = scene.pixel_yx if view.uses_patch else None
        key = (view, scene.picture.checksum, scene.model.name, scene.size, patch)
        if key not in self._answers:
            self._answers[key] = view.look(scene)
            while len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        return self._answers[key]

    def _kinds(self, view: str) -> Mapping[str, type[View]]:
        if view not in self.views:
            raise _unknown("view", self.views, view)
        return self.views[view].kinds()


def _unknown(name: str, choices: Iterable[str], value: object) -> InputError:
    expected = ", ".join(choices) or "none"
    return InputError(f"{name}: expected one of {expected}, found {shorten(value)}")
