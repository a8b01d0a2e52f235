"""Pages from templates."""

from __future__ import annotations

import re
from importlib.resources import files

from crate_interp.files import escaped

__all__ = ["fill_template"]


def fill_template(name: str, title: str, **parts: str) -> str:
    """Write a page from a template of this folder, in the one stylesheet of all pages.

    Args:
        name: File of the template.
        title: Title of the page, as it is; it is escaped here.
        **parts: Markup for each `{{NAME}}` of the template; in it, `{{` means nothing.
    """
    room = files("crate_interp.visualization")
    parts |= {"STYLE": room.joinpath("page.css").read_text("utf-8"), "TITLE": escaped(title)}
    template = room.joinpath(name).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)
