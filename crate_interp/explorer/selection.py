"""What a page shows: picture, patch, models and view, as a link has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from crate_interp.errors import InputError, shorten

__all__ = ["NONE", "OWN_SIZE", "Selection", "link_of", "selection_of"]

NONE = "none"  # no second model
OWN_SIZE = "model's own"
_LONGEST = 400  # letters of a value in a link


@dataclass(frozen=True)
class Selection:
    """What a page shows.

    Attributes:
        picture: Key of the picture.
        model: Name of the model.
        view: Name of the view.
        kind: Name of its class, for a view of several.
        beside: Name of the model beside it, or `none`.
        size: Side of the input, pixels; `None` for the model's own.
        patch: Pixel of the picture, `Y,X`; empty for none.
        options: Values of the controls of the view.
    """

    picture: str
    model: str
    view: str
    kind: str = ""
    beside: str = NONE
    size: int | None = None
    patch: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> Sequence[str]:
        """Names of the models, from left to right."""
        return [self.model] if self.beside == NONE else [self.model, self.beside]


def link_of(selection: Selection, defaults: Mapping[str, Any]) -> str:
    """Write a selection as the part of a link after `?`.

    Args:
        selection: The selection.
        defaults: Values of the controls that need not be written.
    """
    parts: dict[str, Any] = {"picture": selection.picture, "model": selection.model}
    if selection.beside != NONE:
        parts["beside"] = selection.beside
    if selection.size is not None:
        parts["size"] = selection.size
    if selection.patch:
        parts["patch"] = selection.patch
    parts["view"] = selection.view
    if selection.kind:
        parts["kind"] = selection.kind
    chosen = {
        f"o.{name}": value
        for name, value in selection.options.items()
        if value != defaults.get(name)
    }
    return urlencode({**parts, **chosen}, safe="/,")


def selection_of(query: Mapping[str, str], start: Selection) -> Selection:
    """Read a selection from the parameters of a link; what it lacks is as at the start.

    Args:
        query: Parameters. Options are texts, which the controls have yet to read.
        start: What a page shows without parameters.

    Raises:
        InputError: A value is too long, or the size no number.
    """
    for name, value in query.items():
        if len(value) > _LONGEST:
            raise InputError(f"link: {shorten(name)} is too long")
    size = query.get("size", "")
    if size and not (size.isdecimal() and len(size) < 6):
        raise InputError(f"link: size: expected a number of pixels, found {shorten(size)}")
    return Selection(
        query.get("picture", start.picture),
        query.get("model", start.model),
        query.get("view", start.view),
        query.get("kind", "" if "view" in query else start.kind),
        query.get("beside", NONE),
        int(size) if size else None,
        query.get("patch", ""),
        {name[2:]: value for name, value in query.items() if name.startswith("o.")},
    )
