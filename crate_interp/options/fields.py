"""Fields of the dataclasses that declare options."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Any, TypeVar, get_type_hints

from crate_interp.errors import InputError

__all__ = ["option", "part_of", "with_options_of"]

Part = TypeVar("Part")


def option(help: str, default: Any = ..., **metadata: Any) -> Any:  # noqa: A002
    """Make a field of a command's options.

    Args:
        help: Description of the option in `--help`.
        default: Without one, the option is required.
        **metadata: `positional`; `several`, the type of several values; `group`, a heading in
            `--help`; `also`, another name that it had; `metavar`, what
            stands for its value in `--help`; `alone`, the text that the option without a
            value stands for; `presentation` for what changes where a command writes, what it shows
            or how fast it is, but not what it finds.
    """
    metadata["help"] = help
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def with_options_of(
    command: type[Any],
    parts: Sequence[type[Any]],
    more: Sequence[tuple[str, Any, Any]] = (),
    **attributes: Any,
) -> type[Any]:
    """Give a command the options of its parts, such as the segmenter that it uses.

    Args:
        command: Dataclass of the command.
        parts: Dataclasses whose fields become options.
        more: Other options: name, type and field.
        **attributes: Attributes of the class.

    Raises:
        InputError: An option of a part has the name of one that the command has itself.
    """
    taken = {own.name for own in fields(command)}
    for part in parts:
        for own in fields(part):
            if own.name in taken:
                raise InputError(
                    f"{part.__name__}: expected options of its own, found {own.name}, which "
                    f"{command.__name__} has for something else"
                )
    options = [
        (own.name, get_type_hints(part, include_extras=True)[own.name], _copied(own))
        for part in parts
        for own in fields(part)
    ]
    about = {"__doc__": command.__doc__, "__module__": command.__module__}
    return make_dataclass(
        command.__name__,
        [*more, *options],
        bases=(command,),
        namespace=attributes | about,
        frozen=True,
        kw_only=True,
    )


def part_of(command: Any, part: type[Part]) -> Part:
    """Make a part of a command from the options that `with_options_of` gave it."""
    names = [own.name for own in fields(part)]  # type: ignore[arg-type]  # a dataclass
    return part(**{name: getattr(command, name) for name in names})


def _copied(own: Field[Any]) -> Any:
    """Make a field anew, as one belongs to one dataclass."""
    default = own.default if own.default_factory is MISSING else own.default_factory()
    return option(default=... if default is MISSING else default, **own.metadata)
