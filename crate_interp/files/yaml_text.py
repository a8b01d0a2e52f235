"""YAML reduced to what settings need: plain values, bounded in size, depth and repetition."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import yaml

from crate_interp.errors import InputError, shorten
from crate_interp.files.typed_json import read_bytes

__all__ = ["parse_yaml", "read_yaml"]

MAX_CHARACTERS = 1 << 18
MAX_BYTES = 4 * MAX_CHARACTERS + 4  # of a file that is read; one cut here has too many characters
MAX_DEPTH = 32
MAX_VALUES = 20_000  # aliases counted as often as they are used
MAX_ALIASES = 32
MAX_DIGITS = 400

# The scalars of YAML 1.2's core schema. YAML 1.1, which PyYAML follows, takes 1e-3 for a text, and
# `no`, 12:30 and 2024-01-01 for no texts.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_BOOLEANS["FALSE"] = False
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NOT_A_NUMBER = frozenset({".nan", ".NaN", ".NAN"})


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file as `parse_yaml` does.

    Raises:
        InputError: The file cannot be read, or as `parse_yaml`.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not YAML: not UTF-8 at byte {error.start}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Read a YAML text of plain values: mappings, lists, texts, numbers, booleans and nulls.

    Tags are refused, and so is a mapping that names a key twice. Dates are texts. Keys are texts.

    Args:
        text: One document of at most 262,144 characters, 32 levels and 20,000 values.
        source: Name of the file or option that the text comes from, for messages.

    Returns:
        Dictionaries, lists, `str`, `int`, `float`, `bool` and `None`; no two parts are one object.

    Raises:
        InputError: The text is no such YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{source}: expected at most {MAX_CHARACTERS} characters of YAML, found {len(text)}"
        )
    try:
        return _Document(text).value()
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{source}: {place}not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML's scanner lets these out
        raise InputError(f"{source}: not YAML: {error}") from None


class _Document:
    """One document, read event by event, so that nothing is built before it is counted."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchored: dict[str, tuple[Any, int]] = {}  # a finished value, how many values it has
        self._values = 0
        self._aliases = 0

    def value(self) -> Any:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 1)
        next(self._events)  # the document ends
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise InputError("expected one YAML document, found another one behind it")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        where = f"line {event.start_mark.line + 1}"
        if depth > MAX_DEPTH:
            raise InputError(f"{where}: expected at most {MAX_DEPTH} levels of YAML, found more")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, where)
        if event.tag not in (None, "!"):
            raise InputError(f"{where}: expected plain YAML, found the tag {shorten(event.tag)}")
        before = self._values
        self._count(1, where)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, where)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = self._mapping(depth)
        if event.anchor is not None:
            self._anchored[event.anchor] = (value, self._values - before)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            where = f"line {event.start_mark.line + 1}"
            if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!"):
                raise InputError(f"{where}: expected a text as the key, found something else")
            key = _text(event.value, where)
            if key in mapping:
                raise InputError(f"{where}: the key {shorten(key)} occurs twice")
            mapping[key] = self._value(next(self._events), depth + 1)
        return mapping

    def _alias(self, event: Any, where: str) -> Any:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise InputError(f"{where}: expected at most {MAX_ALIASES} aliases, found more")
        if event.anchor not in self._anchored:
            raise InputError(
                f"{where}: the alias {shorten(event.anchor)} means nothing before it, or itself"
            )
        value, count = self._anchored[event.anchor]
        self._count(count, where)
        return copy.deepcopy(value)

    def _count(self, values: int, where: str) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise InputError(f"{where}: expected at most {MAX_VALUES} values, found more")


def _scalar(event: yaml.ScalarEvent, where: str) -> Any:
    text = _text(event.value, where)
    if not event.implicit[0]:  # in quotes
        return text
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise InputError(f"{where}: expected a number, found one of {len(text)} digits")
        if not _INTEGER.fullmatch(text):
            return float(text)
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        return int(text.rstrip("_"), base)
    infinity = _INFINITY.fullmatch(text)
    if infinity:
        return -math.inf if infinity[1] == "-" else math.inf
    return math.nan if text in _NOT_A_NUMBER else text


def _text(text: str, where: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{where}: expected text, found half a surrogate pair")
    return text
