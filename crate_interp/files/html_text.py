"""Text of the data as text of a page: nothing in it is markup."""

from __future__ import annotations

import html

__all__ = ["escaped"]


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
