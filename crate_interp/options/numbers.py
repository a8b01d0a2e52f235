"""Options that are several numbers in one text."""

from __future__ import annotations

import re

from crate_interp.errors import InputError, shorten

__all__ = ["numbers_of", "pixel_of"]


def numbers_of(option: str, text: str, word: str, example: str) -> list[int] | None:
    """Read numbers separated by commas, each once.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.
        word: Value that stands for no numbers.
        example: Numbers, for messages.

    Returns:
        The numbers, from 0; `None` for the word.

    Raises:
        InputError: The text is neither.
    """
    if text == word:
        return None
    numbers = _whole_numbers(text)
    if numbers is None:
        raise InputError(
            f"{option}: expected {word} or numbers as {example}, found {shorten(text)}"
        )
    return list(dict.fromkeys(numbers))


def pixel_of(option: str, text: str) -> tuple[int, int]:
    """Read a pixel `Y,X`, row first.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.

    Raises:
        InputError: The text is no pixel.
    """
    numbers = _whole_numbers(text)
    if numbers is None or len(numbers) != 2:
        raise InputError(f"{option}: expected Y,X such as 120,64, found {shorten(text)}")
    return numbers[0], numbers[1]


def _whole_numbers(text: str) -> list[int] | None:
    parts = [part.strip() for part in text.split(",")]
    numbers = all(re.fullmatch("[0-9]{1,9}", part) for part in parts)
    return [int(part) for part in parts] if numbers else None
