"""Arguments of public classes, checked where they are given and not where they are used."""

from __future__ import annotations

from functools import cache
from typing import Any, get_type_hints

import numpy as np

from crate_interp.files import checked_as
from crate_interp.options.ranges import check_ranges

__all__ = ["check_arguments"]


def check_arguments(settings: Any, *names: str) -> None:
    """Refuse values that are not of the type that their field declares, or out of its range.

    Args:
        settings: A dataclass, whose numbers of numpy become Python's.
        *names: Fields that hold numbers, texts, `None`, or tuples of these.

    Raises:
        InputError: A value is of another type, no member of a `Literal`, or out of its range.
    """
    kind: Any = type(settings)
    hints = _hints_of(kind)
    for name in names:
        value = getattr(settings, name)
        plain = value.item() if isinstance(value, np.generic) else value
        object.__setattr__(settings, name, checked_as(plain, hints[name], name))
    check_ranges(settings)


@cache
def _hints_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
