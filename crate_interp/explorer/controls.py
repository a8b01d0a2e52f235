"""Controls of a view: what the fields of its dataclass look like on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from crate_interp.errors import InputError, shorten
from crate_interp.explorer.view import View
from crate_interp.files import checked_as
from crate_interp.options.ranges import Range

__all__ = ["Control", "Sizes", "controls_of", "view_of"]

Kind = Literal["slider", "choice", "switch", "text"]
Shown = TypeVar("Shown", bound=View)

_FEW = 20  # end of a slider of whole numbers; four times the default, if that is more
_NUMBERS = 31  # numbers that a list of choices has beside its words, at most
_FINE = 2  # width of a range up to which a slider has steps of 0.01
_STEPS = 100  # of a wider one


@dataclass(frozen=True)
class Sizes:
    """Sizes of the models of a page, which end the sliders.

    Attributes:
        depth: Largest number of blocks.
        heads: Largest number of heads.
    """

    depth: int
    heads: int


@dataclass(frozen=True)
class Control:
    """A control, whatever draws it.

    Attributes:
        name: Name of the field.
        label: Name on the page.
        help: Sentence below it.
        kind: A slider, a list of choices, a switch, or a line of text.
        default: Value at the start.
        limits: Least value, largest value and step of a slider.
        choices: Values of a list.
    """

    name: str
    label: str
    help: str
    kind: Kind
    default: Any
    limits: tuple[float, float, float] = (0, 1, 1)
    choices: tuple[str | int | float, ...] = ()

    def value_of(self, given: object) -> Any:
        """Bring a value of the page, or a text of a link, to the type of the field.

        Raises:
            InputError: It is none of the choices, or lies beyond the ends of the slider.
        """
        if self.kind == "switch":
            return self._switched(given)
        if self.kind == "choice":
            for choice in self.choices:
                if str(choice) == str(given):
                    return choice
            raise InputError(
                f"{self.label}: expected one of {', '.join(map(str, self.choices))}, found "
                f"{shorten(given)}"
            )
        if self.kind == "text":
            return self._typed_in(given)
        number = _number(self.label, given)
        low, high, step = self.limits
        if not low <= number <= high:
            raise InputError(f"{self.label}: expected {low:g} to {high:g}, found {shorten(given)}")
        return int(number) if step == 1 else number

    def _switched(self, given: object) -> bool:
        if given in (True, "True"):
            return True
        if given in (False, "False"):
            return False
        raise InputError(f"{self.label}: expected True or False, found {shorten(given)}")

    def _typed_in(self, given: object) -> Any:
        if given is None or not str(given).strip():
            return self.default
        text = str(given).strip()
        return int(text) if text.isdecimal() and len(text) < 10 else text


def controls_of(kind: type[View], sizes: Sizes) -> list[Control]:
    """Give the controls of a view.

    Args:
        kind: Class of the view.
        sizes: Sizes of the models.
    """
    hints = get_type_hints(kind, include_extras=True)
    return [_control(own, hints[own.name], sizes) for own in fields(kind)]


def view_of(kind: type[Shown], values: Mapping[str, Any]) -> Shown:
    """Make a view of the values of its controls.

    Raises:
        InputError: A value is of another type, or out of its range.
    """
    hints = get_type_hints(kind)
    return kind(**{name: checked_as(value, hints[name], name) for name, value in values.items()})


def _control(own: Field[Any], hint: Any, sizes: Sizes) -> Control:
    words = tuple(_words(hint))
    range_ = next(_ranges(hint), None)
    name, default = own.name, cast("Any", own.default)
    label = name.rstrip("_").replace("_", " ")
    about = label, str(own.metadata.get("help", ""))
    if hint is bool:
        return Control(name, *about, "switch", default)
    count = {"block": sizes.depth, "head": sizes.heads}.get(name)
    if NoneType in get_args(hint) or (range_ is None and not words):
        return Control(name, *about, "text", default)
    if words:
        numbers: tuple[int | float, ...] = ()
        if range_ is not None and count is not None:
            numbers = tuple(range(count))
        elif range_ is not None and isinstance(range_.maximum, int) and range_.maximum > 1:
            first = int(range_.minimum)
            numbers = tuple(range(first, min(int(range_.maximum), first + _NUMBERS) + 1))
        elif range_ is not None:
            numbers = tuple(number / 10 for number in range(10) if number / 10 in range_)
        return Control(name, *about, "choice", default, choices=(*words, *numbers))
    if count is not None:
        return Control(name, *about, "slider", default % count, limits=(0, max(1, count - 1), 1))
    limits = _limits(range_ or Range(0, 1), default, _is_whole(hint))
    return Control(name, *about, "slider", default, limits=limits)


def _limits(range_: Range, default: float, whole: bool) -> tuple[float, float, float]:
    if whole:
        return range_.minimum, min(range_.maximum, max(_FEW, 4 * default)), 1
    wide = range_.maximum - range_.minimum
    step = 0.01 if wide <= _FINE else wide / _STEPS
    low = range_.minimum + step * (range_.minimum in range_.without)
    return low, range_.maximum - step * (range_.maximum in range_.without), step


def _is_whole(hint: Any) -> bool:
    return hint is int or any(_is_whole(part) for part in get_args(hint)[:1])


def _words(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) is not Annotated:
        for part in get_args(hint):
            yield from _words(part)


def _ranges(hint: Any) -> Iterator[Range]:
    yield from (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range))
    for part in get_args(hint):
        yield from _ranges(part)


def _number(label: str, given: object) -> float:
    try:
        number = float(given)  # type: ignore[arg-type]  # what is none is refused below
    except (TypeError, ValueError):
        raise InputError(f"{label}: expected a number, found {shorten(given)}") from None
    if number != number:
        raise InputError(f"{label}: expected a number, found NaN")
    return number
