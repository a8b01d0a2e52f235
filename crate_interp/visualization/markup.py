"""Text of the data as text of a page: nothing in it is markup."""

from __future__ import annotations

import html
import re
from importlib.resources import files

__all__ = ["escaped", "fill_template"]


def escaped(text: object) -> str:
    """Write a text so that a page shows it as it is, between tags or in a quoted attribute.

    Characters that are not seen, or that turn the direction of reading, are shown as escapes.
    """
    shown = (
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )
    return html.escape("".join(shown))


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
