"""Fetching a data set, or a list of what can be fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.runs.command import Command

__all__ = ["Download"]


@dataclass(frozen=True, kw_only=True)
class Download(Command):
    """Fetch a data set and check it; a broken download goes on."""

    group: ClassVar[str] = "manage"
    continues: ClassVar[bool] = True

    name: str | None = option("data set, for instance coco-val2017", None, positional=True)
    list: bool = option("say what can be fetched, and where it goes", False)
    root: Path | None = option("data folder (default: $CRATE_INTERP_DATA, or the user's)", None)

    def __post_init__(self) -> None:
        if self.name is None and not self.list:
            raise InputError("name a data set, or ask for them with --list")

    def run(self) -> int:
        """Fetch the data set, or list all of them.

        Raises:
            InputError: The name is unknown, or the data set cannot be fetched.
        """
        from crate_interp.data.built_in import BUILT_IN_SETS
        from crate_interp.data.download import DATASETS, dataset_folder, download, is_present

        if self.name is not None and not self.list:
            folder = download(self.name, self.root)
            print(f"{self.name} is in {folder}")
            return 0
        print(f"{'name':16}{'download':>10}  {'here':6}folder")
        for name, archives in DATASETS.items():
            gigabytes = sum(archive.size for archive in archives) / 1e9
            here = "yes" if is_present(name, self.root) else "no"
            print(f"{name:16}{gigabytes:>7.1f} GB  {here:6}{dataset_folder(self.root)}")
        for name, built_in in BUILT_IN_SETS.items():
            print(f"{name:16}{'-':>10}  {'yes':6}built in: `--coco {name}`, {built_in.contents}")
        return 0
