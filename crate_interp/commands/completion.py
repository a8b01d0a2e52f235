"""What a shell reads to complete commands, options and their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.arguments import parser_of_all
from crate_interp.runs.command import Command

__all__ = ["Completion"]


@dataclass(frozen=True)
class Completion(Command):
    """Print what a shell completes commands by.

    For bash, once: crate-interp completion bash >
    ~/.local/share/bash-completion/completions/crate-interp
    """

    group: ClassVar[str] = "manage"

    shell: Literal["bash", "zsh", "fish", "tcsh", "powershell"] = option(
        "bash, zsh, fish, tcsh or powershell", positional=True
    )

    def run(self) -> int:
        """Print it.

        Raises:
            InputError: shtab is missing, or too old for the shell.
        """
        from crate_interp.commands import find_commands

        try:
            import shtab
        except ImportError:
            raise InputError(
                "completion needs shtab: pip install 'crate-interp[completion]'"
            ) from None
        if self.shell not in shtab.SUPPORTED_SHELLS:
            raise InputError(f"this shtab knows {', '.join(shtab.SUPPORTED_SHELLS)}: update it")
        print(shtab.complete(parser_of_all(find_commands(), shtab.FILE), self.shell))
        return 0
