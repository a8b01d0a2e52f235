"""Turns arguments of the command line, and YAML files of them, into the options of a command."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, Protocol, get_args, get_origin, get_type_hints

from crate_interp.errors import InputError, shorten
from crate_interp.options.pipelines import find_pipeline

__all__ = ["parse_arguments", "parser_of_all"]

PROGRAM = "crate-interp"
DESCRIPTION = "What have white-box vision transformers learnt? Hooks, MaskCut, COCO AP."
_NAME = 19  # letters of a command's name, before its summary is moved to the right
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH", dict: "JSON"}


class Listed(Protocol):
    """Entry of the list of commands."""

    @property
    def group(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def load(self) -> Any: ...


def parse_arguments(table: Mapping[str, Listed], arguments: Sequence[str]) -> tuple[str, Any]:
    """Find the command and make its options.

    A value of the command line comes before one of `--config`, and that before a default.

    Args:
        table: The commands; a name of two words is a command of a group.
        arguments: Arguments of the command line, without the program's name.

    Returns:
        The command and its options; `help` or `version` and `None`.

    Raises:
        InputError: Options that do not go with one another.
        SystemExit: 0 after help was printed, 2 after an argument was refused in one line.
    """
    first, *rest = arguments or [""]
    if not first:
        _listing(PROGRAM, DESCRIPTION, table).print_help()
        return "help", None
    if first == "--version":
        return "version", None
    if first in table:
        return first, _options_of(first, table[first], rest)
    group = {name: entry for name, entry in table.items() if name.startswith(f"{first} ")}
    if not group:
        _command_missing(_listing(PROGRAM, DESCRIPTION, table), table, first)
    name = f"{first} {rest[0]}" if rest else first
    if name not in group:
        about = f"One of {', '.join(group)}."
        _command_missing(_listing(f"{PROGRAM} {first}", about, group), group, name)
    return name, _options_of(name, group[name], rest[1:])


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        self.exit(2, f"error: {InputError(f'{message}; usage: {self.prog} --help')}\n")


def _listing(program: str, description: str, table: Mapping[str, Listed]) -> _Parser:
    """A parser that only prints the help of many commands, which fits one screen."""
    width = min(_NAME, max(map(len, table)))
    groups: dict[str, list[str]] = {}
    for name, entry in table.items():
        groups.setdefault(entry.group, []).append(f"  {name:{width}}  {entry.summary}")
    lines = [description, *(line for name, own in groups.items() for line in (f"{name}:", *own))]
    usage = f"{program} [--version] COMMAND [options]; {program} COMMAND --help"
    return _Parser(
        program,
        "\n".join([usage, *lines]).replace("%", "%%"),  # no epilog, before which a line is empty
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _command_missing(parser: _Parser, table: Mapping[str, Listed], name: str) -> NoReturn:
    if name.split()[-1] in ("-h", "--help"):
        parser.print_help()
        parser.exit(0)
    near = difflib.get_close_matches(name[:100], table, n=1)
    offer = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(table)}"
    parser.error(f"unknown command {shorten(name)}{offer}")


def _options_of(command: str, entry: Listed, arguments: Sequence[str]) -> Any:
    kind = entry.load()
    if hasattr(kind, "kind_for"):
        kind = kind.kind_for(arguments)
    hints = get_type_hints(kind)
    parser = _parser_of(command, kind, hints)
    given = vars(parser.parse_intermixed_args(arguments))
    file = given.pop("config", None)
    options = {option.name: option for option in dataclasses.fields(kind)}
    try:
        values = {} if file is None else _values_of_file(file, options, hints)
        for name, text in given.items():
            values[name] = _value_of_text(text, options[name], hints[name])
    except InputError as error:
        parser.error(str(error))
    missing = [_name_of(option) for option in options.values() if _is_required(option)]
    missing = [name for name in missing if name.lstrip("-").replace("-", "_") not in values]
    if missing:
        parser.error(f"missing: {', '.join(missing)}")
    return kind(**values)


def parser_of_all(table: Mapping[str, Listed], files: Any) -> argparse.ArgumentParser:
    """Make one parser of all commands and their options, for programs that read it.

    Args:
        table: The commands; a name of two words is a command of a group.
        files: Value of the attribute `complete` of arguments that are files.

    Raises:
        InputError: A package that has a command is broken.
    """
    root = _Parser(PROGRAM, description=DESCRIPTION)
    commands = root.add_subparsers()
    groups: dict[str, Any] = {}
    for name, entry in table.items():
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            members = ", ".join(other for other in table if other.startswith(f"{group} "))
            groups[group] = commands.add_parser(group, help=members).add_subparsers()
        about = entry.summary.replace("%", "%%")
        parser = groups.get(group, commands).add_parser(last, help=about)
        kind, known = entry.load(), set[str]()
        for arguments in kind.variants() if hasattr(kind, "variants") else [[]]:
            own = kind.kind_for(arguments) if hasattr(kind, "kind_for") else kind
            hints = get_type_hints(own)
            for option, action in _add_options(parser, own, hints, known):
                _complete(action, option, hints[option.name], files)
            known |= {option.name for option in dataclasses.fields(own)}
    return root


def _complete(action: Any, option: dataclasses.Field[Any], hint: Any, files: Any) -> None:
    """Give an option the words that it takes, or say that it takes files."""
    hint = option.metadata.get("several") or hint
    words, kinds = _words_of(hint), {get_origin(part) for part in _parts_of(hint)}
    if words and kinds <= {Literal, None} and not {str, Path} & {*_parts_of(hint)}:
        action.choices = words
    elif Path in _parts_of(hint) or option.metadata.get("positional"):
        action.complete = files


def _parser_of(command: str, kind: type[Any], hints: Mapping[str, Any]) -> _Parser:
    parser = _Parser(
        f"{PROGRAM} {command}",
        description=str(kind.__doc__).replace("%", "%%"),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    _add_options(parser, kind, hints)
    return parser


def _add_options(
    parser: argparse.ArgumentParser,
    command: type[Any],
    hints: Mapping[str, Any],
    but: Container[str] = (),
) -> list[tuple[dataclasses.Field[Any], argparse.Action]]:
    """Add the options of a command to a parser, and give them with their fields.

    Args:
        parser: The parser.
        command: Dataclass of the command.
        hints: Types of its fields.
        but: Names of fields that the parser has.
    """
    if not but:
        about = "YAML file of the options below, or the name of a pipeline"
        parser.add_argument("--config", metavar="FILE", help=about)
    groups: dict[str, Any] = {"": parser}
    actions: list[tuple[dataclasses.Field[Any], argparse.Action]] = []
    for option in dataclasses.fields(command):
        if option.name in but:
            continue
        is_hidden = option.name in getattr(command, "hidden", ())
        arguments: dict[str, Any] = {"help": argparse.SUPPRESS if is_hidden else _help_of(option)}
        several = option.metadata.get("several")
        if hints[option.name] is bool:
            arguments["action"] = "store_true"
        else:
            kind = several or hints[option.name]
            arguments["metavar"] = option.metadata.get("metavar") or _metavar_of(kind)
        if option.metadata.get("positional"):
            arguments["metavar"] = option.name.upper()
            nargs = "*" if several else "?"
            actions.append((option, parser.add_argument(option.name, nargs=nargs, **arguments)))
            continue
        if several:
            arguments |= {"nargs": "+", "action": "extend"}
        if "alone" in option.metadata:
            arguments |= {"nargs": "?", "const": option.metadata["alone"]}
        title = option.metadata.get("group", "")
        group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        also = [f"--{name}" for name in option.metadata.get("also", [])]
        names = [_name_of(option), *also]
        actions.append((option, group.add_argument(*names, dest=option.name, **arguments)))
    return actions


def _name_of(option: dataclasses.Field[Any]) -> str:
    """Name of the option on the command line: `class_` is `--class`."""
    if option.metadata.get("positional"):
        return option.name
    return "--" + option.name.rstrip("_").replace("_", "-")


def _is_required(option: dataclasses.Field[Any]) -> bool:
    return option.default is option.default_factory is dataclasses.MISSING


def _help_of(option: dataclasses.Field[Any]) -> str:
    text = str(option.metadata.get("help", ""))  # other packages' fields may be plain ones
    default = option.default
    if option.default_factory is not dataclasses.MISSING:
        default = option.default_factory()
    if isinstance(default, list):
        default = " ".join(map(str, default))
    if _is_required(option):
        text += " (required)"
    elif default not in (None, False, {}) and "(default" not in text:
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _parts_of(hint: Any) -> tuple[Any, ...]:
    """Types that a value may have; a `Literal` is one of them."""
    if get_origin(hint) is Literal or not get_args(hint) or get_origin(hint) in (dict, list):
        return (hint,)
    return tuple(part for choice in get_args(hint) for part in _parts_of(choice))


def _words_of(hint: Any) -> list[str]:
    parts = _parts_of(hint)
    return [word for part in parts if get_origin(part) is Literal for word in get_args(part)]


def _metavar_of(hint: Any) -> str:
    words = _words_of(hint)
    kinds = [get_origin(part) or part for part in _parts_of(hint)]
    words += [_METAVARS[kind] for kind in kinds if kind in _METAVARS]
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"


def _value_of_text(text: Any, option: dataclasses.Field[Any], hint: Any) -> Any:
    """Make an option's value of its text, or texts."""
    several = option.metadata.get("several")
    if several:
        return [_typed(part, several, _name_of(option)) for part in text]
    return text if hint is bool else _typed(text, hint, _name_of(option))


def _typed(text: str, hint: Any, source: str) -> Any:
    from crate_interp.files import checked_as, parse_yaml  # not for --help

    kinds = set(_parts_of(hint))
    value: Any = text
    if text not in _words_of(hint) and not kinds & {str, Path}:
        value = parse_yaml(text, f"{source} {shorten(text)}")
    elif NoneType in kinds and text == "null":
        value = None
    return checked_as(value, hint, source)


def _values_of_file(
    name: str, options: Mapping[str, dataclasses.Field[Any]], hints: Mapping[str, Any]
) -> dict[str, Any]:
    from crate_interp.files import checked_as, read_yaml

    path = find_pipeline(name, ("maskcut",), "--config")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of options, found {shorten(content)}")
    values: dict[str, Any] = {}
    names = {name.rstrip("_"): name for name in options}
    names |= {also: name for name in options for also in options[name].metadata.get("also", [])}
    for key, value in content.items():
        if key.rstrip("_") not in names:
            near = difflib.get_close_matches(key[:100], names, n=1)
            offer = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: unknown key {shorten(key)}{offer}")
        option = names[key.rstrip("_")]
        values[option] = checked_as(value, hints[option], f"{path}: {key}")
    return values
