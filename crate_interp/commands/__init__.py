"""One command per file, found by the file's name; installed packages may add others.

The list of commands is read from the sources, so that `--help` imports none of them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from crate_interp.plugins import load_plugin, plugins, tell_of_taken

__all__ = ["GROUPS", "CommandEntry", "find_commands"]

GROUPS = ("find masks", "look inside", "score", "train", "manage")  # headings of --help, in order


@dataclass(frozen=True)
class CommandEntry:
    """A command that can be called.

    Attributes:
        group: Heading that it stands under.
        summary: Description in one line.
        module: Module of its class.
        plugin: Entry point of a command of another package.
    """

    group: str
    summary: str
    module: str
    plugin: EntryPoint | None = None

    def load(self) -> Any:
        """Import the class of the command.

        Raises:
            InputError: The package that has it is broken.
        """
        from crate_interp.runs.command import Command

        if self.plugin is not None:
            return load_plugin(self.plugin, Command)
        module = importlib.import_module(self.module)
        return next(kind for kind in vars(module).values() if _is_command(kind, self.module))


def find_commands() -> dict[str, CommandEntry]:
    """Find all commands by their names; a name of two words is a command of a group."""
    entries: dict[str, CommandEntry] = {}
    for name, module, path in _own(Path(__file__).parent, __name__):
        described = _described(path)
        if described is not None:
            entries[name] = CommandEntry(*described, module)
    tell_of_taken("commands", entries)
    for name, plugin in sorted(plugins("commands").items()):
        if name not in entries:
            entries[name] = CommandEntry(*_described_plugin(plugin), plugin.module, plugin)
    order = [*GROUPS, *{entry.group: None for entry in entries.values()}]
    return dict(sorted(entries.items(), key=lambda item: order.index(item[1].group)))


def _own(folder: Path, package: str) -> Iterator[tuple[str, str, Path]]:
    """Name, module and file of the commands in a folder and in those in it."""
    for module in pkgutil.iter_modules([str(folder)]):
        name, full = module.name.replace("_", "-"), f"{package}.{module.name}"
        if module.ispkg:
            for inner, inner_module, path in _own(folder / module.name, full):
                yield f"{name} {inner}", inner_module, path
        else:
            yield name, full, folder / f"{module.name}.py"


def _described_plugin(plugin: EntryPoint) -> tuple[str, str]:
    """Group and summary of a command of another package, as far as its source tells them."""
    package = plugin.dist.name if plugin.dist else "another package"
    described = None
    with suppress(ImportError, OSError, SyntaxError, ValueError):  # told when it is called
        spec = importlib.util.find_spec(plugin.module)
        if spec is not None and spec.origin is not None:
            described = _described(Path(spec.origin), plugin.attr)
    group, summary = described or ("", "")
    return group or "other packages", summary or f"(of {package})"


def _described(path: Path, name: str = "") -> tuple[str, str] | None:
    """Group, and first line of the docstring, of the class in a file that declares a `group`.

    Args:
        path: The file.
        name: Name of the class, which then may declare none.
    """
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and name in ("", node.name):
            summary = (ast.get_docstring(node) or "").split("\n")[0]
            for statement in node.body:
                targets = [getattr(statement, "target", None), *getattr(statement, "targets", ())]
                if any(isinstance(target, ast.Name) and target.id == "group" for target in targets):
                    return ast.literal_eval(statement.value), summary  # type: ignore[attr-defined]
            if name:
                return "", summary
    return None


def _is_command(kind: Any, module: str) -> bool:
    return isinstance(kind, type) and kind.__module__ == module and "group" in vars(kind)
