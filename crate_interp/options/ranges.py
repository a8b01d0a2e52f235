"""Numbers of a range as types: a field declares one, `check_ranges` refuses all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from crate_interp.errors import InputError, shorten

__all__ = [
    "AtLeastOne",
    "BelowOne",
    "Cosine",
    "Fraction",
    "Index",
    "Natural",
    "Noise",
    "NormFactor",
    "Range",
    "ReadProcesses",
    "Seed",
    "Share",
    "Side",
    "check_ranges",
]


@dataclass(frozen=True)
class Range:
    """Numbers from a least to a largest one; never NaN.

    Args:
        minimum: The least number.
        maximum: The largest number.
        without: Ends that are not in the range themselves.
        words: Words for what a message expects, in place of the end that was passed.
    """

    minimum: int | float
    maximum: int | float
    without: tuple[int | float, ...] = ()
    words: str = ""

    def __contains__(self, number: int | float) -> bool:
        return self.minimum <= number <= self.maximum and number not in self.without

    def expected(self, number: int | float) -> str:
        """Say what was expected where `number` was found."""
        if self.words:
            return self.words
        if number > self.maximum:
            return f"a number of at most {self.maximum}"
        if self.minimum in self.without:
            return f"more than {self.minimum}"
        return f"at least {self.minimum}" if self.minimum else "0 or more"


AtLeastOne = Annotated[int, Range(1, 1_000_000_000)]
Natural = Annotated[int, Range(0, 1_000_000_000)]
Noise = Annotated[float, Range(0, 100)]
NormFactor = Annotated[float, Range(1, 1000)]
Index = Annotated[int, Range(-1_000_000, 1_000_000)]  # the model knows better which it has
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy and scikit-learn take
Side = Annotated[int, Range(1, 16_384)]  # of a square, pixels
ReadProcesses = Annotated[int, Range(0, 256)]
Cosine = Annotated[float, Range(-1, 1, (-1, 1), "a cosine between -1 and 1")]
Fraction = Annotated[float, Range(0, 1, (), "0 to 1")]
BelowOne = Annotated[float, Range(0, 1, (1,), "0 to 1, and less than 1")]
Share = Annotated[float, Range(0, 1, (0,), "a share in (0, 1]")]


def check_ranges(settings: Any) -> None:
    """Refuse numbers out of the range that the type of their field declares.

    Args:
        settings: A dataclass; `x: Annotated[int, Range(1, 9)] | None` declares a range, and so does
            a type in a list or a tuple. Texts have no range.

    Raises:
        InputError: A number is out of its range; the message names the field.
    """
    kind: Any = type(settings)
    for name, expected in _ranges_of(kind).items():
        for number in _numbers(getattr(settings, name)):
            if number not in expected:
                raise InputError(
                    f"{name.rstrip('_')}: expected {expected.expected(number)}, "
                    f"found {shorten(number)}"
                )


@cache
def _ranges_of(kind: Any) -> dict[str, Range]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: range_ for field in fields(kind) for range_ in _ranges_in(hints[field.name])
    }


def _ranges_in(hint: Any) -> Iterator[Range]:
    yield from (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range))
    for part in get_args(hint):
        yield from _ranges_in(part)


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
