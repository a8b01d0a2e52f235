"""A weight file of ours on the Hugging Face hub, where timm finds it, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crate_interp import weights
from crate_interp.options import option
from crate_interp.runs.command import Command

__all__ = ["Push"]


@dataclass(frozen=True)
class Push(Command):
    """Put a model on the Hugging Face hub, as timm does.

    All commands take it as `--model hf-hub:USER/NAME` then, and so does `timm.create_model`, once
    crate_interp is imported. The access token is that of `hf auth login`, or `HF_TOKEN`.
    """

    group: ClassVar[str] = "manage"

    file: Path = option("safetensors file of `train` or `convert`", positional=True)
    repository: str = option("USER/NAME; made if there is none", positional=True)
    private: bool = option("make a new repository private", False)

    def run(self) -> int:
        """Put the file there with its configuration, and say where.

        Raises:
            InputError: The file does not know its model, or the name is none of a repository.
            CheckpointError: The file cannot be read, or the hub refuses it.
        """
        address = weights.push_to_hub(self.file, self.repository, private=self.private)
        print(f"{address}: load it as hf-hub:{self.repository}")
        return 0
