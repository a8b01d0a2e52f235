"""Tables of what can be added in one file: by this package, and by installed ones."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from collections.abc import Container
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from crate_interp.errors import InputError, shorten

__all__ = ["Table", "load_plugin", "plugins", "tell_of_taken"]

_logger = logging.getLogger(__name__)

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Table(Generic[Kind]):
    """Classes by name: one in each file of a package, and one for each entry point.

    Args:
        package: Package whose files are entries, each named as its file.
        group: Installed packages add entries by the entry points `crate_interp.GROUP`.
        kind: Class that every entry inherits from.
        source: Name of the option that names an entry, for messages.
    """

    package: str
    group: str
    kind: Any  # an abstract class, which mypy takes for no type
    source: str

    def names(self) -> list[str]:
        """Names of all entries, those of this package first; nothing is imported."""
        own = self._own()
        tell_of_taken(self.group, own)
        return [*own, *(name for name in sorted(plugins(self.group)) if name not in own)]

    def __getitem__(self, name: str) -> type[Kind]:
        """Import the entry of a name.

        Raises:
            InputError: There is none, or the package that has it is broken.
        """
        if name in self._own():
            module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
            return next(
                entry
                for entry in vars(module).values()
                if isinstance(entry, type)
                and issubclass(entry, self.kind)
                and entry.__module__ == module.__name__
            )
        others = plugins(self.group)
        if name not in others:
            raise InputError(
                f"{self.source}: expected one of {', '.join(self.names())}, found {shorten(name)}"
            )
        return load_plugin(others[name], self.kind)  # type: ignore[no-any-return]

    def _own(self) -> list[str]:
        spec = importlib.util.find_spec(self.package)
        folders = [] if spec is None else [*(spec.submodule_search_locations or ())]
        return [module.name.replace("_", "-") for module in pkgutil.iter_modules(folders)]


def plugins(group: str) -> dict[str, EntryPoint]:
    """Find what installed packages have for a table, by name; nothing is imported.

    Args:
        group: Packages name the entry point group `crate_interp.GROUP`.
    """
    return {entry.name: entry for entry in entry_points(group=f"crate_interp.{group}")}


def tell_of_taken(group: str, own: Container[str]) -> None:
    """Warn of entries of other packages whose name is one of ours, which are not used."""
    for name, entry in plugins(group).items():
        if name in own:
            package = entry.dist.name if entry.dist else "another package"
            _logger.warning(
                "%s %s of %s is not used: the name is taken", entry.group, name, package
            )


def load_plugin(entry: EntryPoint, kind: type) -> Any:
    """Import an entry.

    Args:
        entry: An entry point, as `plugins` finds it.
        kind: Type that it has to be of, or class to inherit from if it is a class.

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
