"""Fields of the dataclasses that declare options."""

from __future__ import annotations

from copy import copy
from dataclasses import field
from typing import Any

__all__ = ["option"]


def option(help: str, default: Any = ..., **metadata: Any) -> Any:  # noqa: A002
    """Make a field of a command's options.

    Args:
        help: What `--help` says of it.
        default: Without one, the option is required.
        **metadata: `positional`; `several`, the type of several values; `group`, a heading in
            `--help`; `presentation` for what changes where a command writes, what it shows or how
            fast it is, but not what it finds.
    """
    metadata["help"] = help
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
