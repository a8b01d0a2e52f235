"""JSON as values of a declared type; what does not fit is refused with its place in the file."""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    BinaryIO,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    is_typeddict,
    overload,
)

import msgspec

from crate_interp.errors import InputError, shorten

__all__ = ["checked_as", "opened", "parse_json_as", "read_bytes", "read_json_as"]

Kind = TypeVar("Kind")

LONGEST_PATH, LONGEST_NAME = 4095, 255  # characters and bytes, on most systems


def read_json_as(path: str | os.PathLike[str], kind: type[Kind]) -> Kind:
    """Read a JSON file as a value of a type.

    Args:
        path: The file.
        kind: A `msgspec.Struct`, a `TypedDict`, `dict[...]`, `list[...]`, or any other type that
            msgspec decodes. Keys that it does not name are left out.

    Raises:
        InputError: The file cannot be read, is no JSON (NaN, infinity, half a surrogate pair and
            nesting beyond Python's recursion limit are none), or does not fit the type.
    """
    return parse_json_as(read_bytes(path), kind, str(path))


def parse_json_as(content: bytes | str, kind: type[Kind], source: str) -> Kind:
    """Read a JSON text as a value of a type.

    Args:
        content: The text, UTF-8 if bytes.
        kind: As for `read_json_as`.
        source: Name of the file or option that the text comes from, for messages.

    Raises:
        InputError: As `read_json_as`.
    """
    if isinstance(content, bytes):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        value: Kind = _decoder_of(kind).decode(content)  # type: ignore[arg-type]  # types hash
        return value
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {_expected_found(str(error), content)}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(f"{source}: not a JSON file: {error}") from None


@cache
def _decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder, which is made once: to look at a type takes longer than to read a line."""
    return msgspec.json.Decoder(kind)


@overload
def checked_as(value: Any, kind: type[Kind], source: str) -> Kind: ...
@overload
def checked_as(value: Any, kind: Any, source: str) -> Any: ...  # a union or `Literal` is no type
def checked_as(value: Any, kind: Any, source: str) -> Any:
    """Check that a Python value, as JSON or YAML has them, is of a type.

    Args:
        value: Dictionaries, lists, texts, numbers, booleans and `None`.
        kind: As for `read_json_as`; `Path` as well, for a text that can name a file.
        source: Name of the file or option that the value comes from, for messages.

    Returns:
        The value, converted to the type.

    Raises:
        InputError: The value does not fit the type.
    """
    try:
        return msgspec.convert(value, type=kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        message = str(error)
        if any(words in message for words in (" - at ", "missing", "unknown field")):
            raise InputError(f"{source}: {_expected_found(message, value)}") from None
        raise InputError(f"{source}: expected {_words(kind)}, found {shorten(value)}") from None
    except (UnicodeError, RecursionError) as error:
        raise InputError(f"{source}: {error}") from None


def read_bytes(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """Read a file as a whole, or its first `most` bytes.

    Raises:
        InputError: It cannot be read: it is missing, a folder, a device or a pipe, or its name is
            none.
    """
    with opened(path) as file:
        return file.read(most)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read it in a `with` block, in which all that the system refuses is named.

    Raises:
        InputError: As `read_bytes`.
    """
    try:
        if stat.S_IFMT(Path(path).stat().st_mode) in (stat.S_IFIFO, stat.S_IFCHR):  # without end
            raise InputError(f"{path}: expected a file, found a device or a pipe")
        with Path(path).open("rb") as file:
            yield file
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _decode(kind: type, value: Any) -> Any:
    """Make what msgspec does not know: paths."""
    if kind is not Path or not isinstance(value, str) or "\0" in value:
        raise ValueError(f"expected {kind.__name__}")
    path = Path(os.fsdecode(os.fsencode(value)))  # half a surrogate pair is in no file's name
    if len(value) > LONGEST_PATH or any(len(os.fsencode(p)) > LONGEST_NAME for p in path.parts):
        raise ValueError("expected the name of a file")
    return path


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
}


def _words(kind: Any) -> str:
    """Say in words what values a type has."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(parts[0])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in parts)
    if origin is tuple and Ellipsis not in parts:
        return f"a list of {len(parts)}, each {_words(parts[0])}"
    if is_typeddict(kind):
        return "a mapping"
    return _NAMES.get(origin or kind, getattr(kind, "__name__", str(kind)))


def _expected_found(message: str, value: Any) -> str:
    """Put msgspec's message in this package's words: place, expected, found.

    Args:
        message: Message of msgspec.
        value: The value that was checked, or its JSON text.
    """
    message, _, place = message.partition(" - at ")
    message, place = message.replace("`", ""), place.strip("`").removeprefix("$")
    missing = re.fullmatch(r"Object missing required field (.*)", message)
    if missing:
        place, message = f"{place}.{missing[1]}", "expected a value, found no such key"
    unknown = re.fullmatch(r"Object contains unknown field (.*)", message)
    if unknown:
        place, message = f"{place}.{unknown[1]}", "expected no such key"
    if message.endswith(" out of range"):
        message = "expected a number of at most 64 bits, found a larger one"
    parts = re.fullmatch(r"Expected (.*?)(?:, got (.*))?", message, re.DOTALL)
    if parts:
        actual = " ".join(filter(None, (parts[2], _scalar_at(place, value))))
        message = f"expected {parts[1]}, found {actual or 'something else'}"
    place = place.removeprefix(".")
    return f"{place}: {message}" if place else message


def _scalar_at(place: str, value: Any) -> str:
    """Describe the number or text at a place such as `.images[3].id`; nothing for all else."""
    try:
        if isinstance(value, (bytes, str)):
            value = msgspec.json.decode(value)
        for key, number in re.findall(r"\.([^.\[]+)|\[(\d+)\]", place):
            value = value[int(number)] if number else value[key]
    except (msgspec.DecodeError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return shorten(value) if isinstance(value, (bool, int, float, str)) else ""
