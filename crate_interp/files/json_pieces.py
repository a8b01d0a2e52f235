"""JSON files too large for memory: written piece by piece, with the bytes of `json.dumps`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

__all__ = ["write_json_pieces"]


def write_json_pieces(file: IO[bytes], content: Mapping[str, Any] | Iterator[Any]) -> None:
    """Write a list that an iterator gives, or a mapping in which iterators stand for lists.

    The bytes are those of `json.dumps`, with `indent=1` for a mapping, and of a last newline.

    Args:
        file: Open file.
        content: An iterator of plain values, or plain values and such iterators by name.
    """
    for text in _object(content) if isinstance(content, Mapping) else _list(content, None):
        file.write(text.encode())
    file.write(b"\n")


def _object(content: Mapping[str, Any]) -> Iterator[str]:
    opening = "{\n "
    for name, value in content.items():
        yield f"{opening}{json.dumps(name)}: "
        if isinstance(value, Iterator):
            yield from _list(value, 1)
        else:
            yield json.dumps(value, indent=1).replace("\n", "\n ")
        opening = ",\n "
    yield "\n}" if content else "{}"


def _list(items: Iterator[Any], indent: int | None) -> Iterator[str]:
    margin = "" if indent is None else "\n" + 2 * indent * " "
    opening = f"[{margin}"
    for item in items:
        text = json.dumps(item, indent=indent)
        yield opening + (text.replace("\n", margin) if indent else text)
        opening = f",{margin or ' '}"
    yield "[]" if opening.startswith("[") else f"{margin[:-1]}]"
