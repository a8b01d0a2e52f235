"""What installed packages add to the tables of this one, by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from crate_interp.errors import InputError

__all__ = ["load_plugin", "plugins"]


def plugins(table: str) -> dict[str, EntryPoint]:
    """Find the entries that installed packages have for a table; nothing is imported.

    Args:
        table: Name of the table; packages name the group `crate_interp.TABLE`.
    """
    return {entry.name: entry for entry in entry_points(group=f"crate_interp.{table}")}


def load_plugin(entry: EntryPoint, kind: type) -> Any:
    """Import an entry.

    Args:
        entry: As `plugins` finds it.
        kind: What it has to be, or to inherit from if it is a class.

    Raises:
        InputError: It cannot be imported, or is something else; the message names the package.
    """
    package = entry.dist.name if entry.dist else "a package"
    source = f"{entry.group} {entry.name} of {package}"
    try:
        loaded = entry.load()
    except Exception as error:  # whatever a package raises, the user is told whose it is
        raise InputError(f"{source}: {entry.value} cannot be imported: {error}") from error
    if not (isinstance(loaded, kind) or (isinstance(loaded, type) and issubclass(loaded, kind))):
        raise InputError(f"{source}: expected a {kind.__name__}, found {loaded!r}")
    return loaded
