"""`crate-interp download`: fetch a data set, or list what can be fetched."""

from __future__ import annotations

from crate_interp.config import DownloadConfig
from crate_interp.data.download import DATASETS, dataset_folder, download, is_present
from crate_interp.errors import InputError

__all__ = ["run"]


def run(config: DownloadConfig) -> int:
    """Fetch the data set, or list all of them, and return the exit code.

    Raises:
        InputError: The name is missing or unknown, or the data set cannot be fetched.
    """
    if config.list:
        _print_list(config)
        return 0
    if config.name is None:
        raise InputError(f"name a data set: {', '.join(DATASETS)}")
    folder = download(config.name, config.root)
    print(f"{config.name} is in {folder}")
    return 0


def _print_list(config: DownloadConfig) -> None:
    print(f"{'name':16}{'download':>10}  {'here':6}folder")
    for name, archives in DATASETS.items():
        gigabytes = sum(archive.size for archive in archives) / 1e9
        here = "yes" if is_present(name, config.root) else "no"
        print(f"{name:16}{gigabytes:>7.1f} GB  {here:6}{dataset_folder(config.root)}")
    print(f"{'demo':16}{'-':>10}  {'yes':6}built in: `--coco demo` draws it")
