"""The command line: a table of commands, each a configuration and a task loaded on demand.

Exit codes: 0 done, 1 done but something failed on the way, 2 wrong input, 130 interrupted,
143 training stopped by SIGTERM.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import jsonargparse

from crate_interp import config
from crate_interp.errors import InputError

__all__ = ["main"]

# A name of two words is a command of a group.
COMMANDS: dict[str, type] = {
    "maskcut": config.MaskCutConfig,
    "attention": config.AttentionConfig,
    "evaluate": config.EvaluateConfig,
    "evaluate-classifier": config.EvaluateClassifierConfig,
    "benchmark voc2012": config.VocBenchmarkConfig,
    "benchmark semantic": config.SemanticBenchmarkConfig,
    "benchmark saliency": config.SaliencyBenchmarkConfig,
    "download": config.DownloadConfig,
    "models": config.ModelsConfig,
    "convert": config.ConvertConfig,
    "reconstruct": config.ReconstructConfig,
    "pca": config.PcaConfig,
    "layers": config.LayersConfig,
    "train": config.TrainConfig,
    "curves": config.CurvesConfig,
    "profile": config.ProfileConfig,
    "ablate": config.AblateConfig,
    "attribute": config.AttributeConfig,
    "atlas": config.AtlasConfig,
    "atoms": config.AtomsConfig,
}


def _parser_of(config_class: type) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(description=config_class.__doc__)
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    hints = get_type_hints(config_class)
    groups: dict[str, Any] = {}
    for option in dataclasses.fields(config_class):
        required = option.default is option.default_factory is dataclasses.MISSING
        arguments: dict[str, Any] = {"help": option.metadata["help"]}
        if hints[option.name] is bool:
            arguments["action"] = "store_true"
        else:
            arguments["type"] = hints[option.name]
        if option.default_factory is not dataclasses.MISSING:
            arguments["default"] = option.default_factory()
        elif not required:
            arguments["default"] = option.default
        if "several" in option.metadata:
            arguments |= {"nargs": "+", "type": option.metadata["several"]}
        if option.name == "set":
            arguments["action"] = "extend"
        if option.metadata.get("positional"):
            names = [option.name]
            arguments |= {} if required else {"nargs": "?"}
        else:
            names = ["--" + option.name.rstrip("_").replace("_", "-")]  # `class_` is `--class`
            arguments |= {"required": required, "dest": option.name}
        group: str = option.metadata.get("group", "")
        if group and group not in groups:
            groups[group] = parser.add_argument_group(group)
        (groups[group] if group else parser).add_argument(*names, **arguments)
    return parser


def _parse(arguments: Sequence[str] | None) -> tuple[str, Any]:
    parser = jsonargparse.ArgumentParser(
        prog="crate-interp",
        description="What have white-box vision transformers learnt? Hooks, MaskCut, COCO AP.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _add_commands(parser, COMMANDS, required=False)
    parsed = parser.parse_args(arguments)
    if parsed.version:
        return "version", None
    if parsed.command is None:
        parser.print_help()
        return "help", None
    command, options = parsed.command, parsed[parsed.command]
    if command not in COMMANDS:
        command, options = f"{command} {options.command}", options[options.command]
    values = {k: v for k, v in vars(options).items() if k != "config"}
    return command, COMMANDS[command](**values)


def _add_commands(
    parser: jsonargparse.ArgumentParser, table: Mapping[str, type], required: bool
) -> None:
    """Add the commands of a table, and those named in two words below their first one."""
    commands = parser.add_subcommands(dest="command", required=required)
    groups: dict[str, dict[str, type]] = {}
    for name, config_class in table.items():
        group, _, member = name.partition(" ")
        if member:
            groups.setdefault(group, {})[member] = config_class
        else:
            commands.add_subcommand(name, _parser_of(config_class), help=config_class.__doc__)
    for group, members in groups.items():
        below = jsonargparse.ArgumentParser()
        commands.add_subcommand(group, below, help=f"One of {', '.join(members)}.")
        _add_commands(below, members, required=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        command, configuration = _parse(arguments)
        if command == "version":
            from importlib.metadata import version

            print(version("crate-interp"))
            return 0
        if command == "help":
            return 0
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        logging.captureWarnings(True)
        task = importlib.import_module(f"crate_interp.tasks.{re.sub('[- ]', '_', command)}")
        return int(task.run(configuration))
    except (InputError, OSError) as error:  # OSError: a full disk, a folder that is read-only
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
