"""Errors that a user can act on: the message names the input, what was expected, what was found."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CheckpointError", "InputError", "counted", "errors_of", "shorten"]

LONGEST_MESSAGE = 500
_CUT = " ... "
_END = 160  # characters of a cut message's end that stay: there stands what to do


class InputError(ValueError):
    """Wrong input. The command line prints the message without a traceback and exits with 2.

    The message is one printable line of 500 characters at most, whatever a file put into it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_cut(_one_line(message), LONGEST_MESSAGE, _END))


class CheckpointError(InputError):
    """A weight file that cannot be read, is refused, or does not fit the model."""


@contextmanager
def errors_of(source: object) -> Iterator[None]:
    """Put the name of a weight file, or of a part of it, before what is wrong with it.

    Raises:
        CheckpointError: In place of an `InputError`, or of an `OSError`, which says why.
    """
    try:
        yield
    except InputError as error:
        message = str(error).removeprefix(f"{source}: ")
        raise CheckpointError(f"{source}: {message}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read: {error.strerror or error}") from error


def counted(number: int, thing: str) -> str:
    """Say how many there are of a thing: `1 image`, `2 images`.

    Args:
        number: How many.
        thing: Name of one, whose plural has an s.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def shorten(value: object, limit: int = 60) -> str:
    """Describe a value for a message: its `repr` in one printable line, the middle cut if long.

    Args:
        value: Any value, for instance what a file holds in place of a number.
        limit: Largest length, characters.
    """
    return _cut(_one_line(_SHORT.repr(value)), limit, limit // 4)


class _Short(reprlib.Repr):
    """`repr` that stops early in large containers, and prints no integer of thousands of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 6
        self.maxstring = self.maxother = self.maxlong = 200

    def repr_int(self, value: int, level: int) -> str:  # noqa: ARG002
        digits = value.bit_length() * 3 // 10
        return f"an integer of about {digits} digits" if digits > 40 else repr(value)


_SHORT = _Short()


def _one_line(text: str) -> str:
    text = re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text.strip())
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _cut(text: str, limit: int, end: int) -> str:
    if len(text) <= limit:
        return text
    start = max(0, limit - end - len(_CUT))
    return f"{text[:start]}{_CUT}{text[len(text) - end :]}"
