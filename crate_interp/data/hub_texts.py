"""Texts of data sets on the Hugging Face hub, as Parquet files."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from crate_interp.errors import InputError, shorten

__all__ = ["fetch_hub_texts", "has_split", "is_hub_text", "is_of_split"]

_logger = logging.getLogger(__name__)

_HUB = "hf:"
_NAME = re.compile(r"(?P<set>[\w.-]+/[\w.-]+)(/(?P<folder>[\w./-]+))?(:(?P<split>[\w.-]+))?")
# The hub itself keeps data sets of other formats as Parquet in this branch.
_CONVERTED = "refs/convert/parquet"


def is_hub_text(name: str) -> bool:
    """Whether a name is that of a data set on the hub."""
    return name.startswith(_HUB)


def has_split(name: str) -> bool:
    """Whether a name says which split of a data set it is."""
    return ":" in name.removeprefix(_HUB)


def is_of_split(path: str, split: str) -> bool:
    """Whether a file is one of a split, as Hugging Face names them.

    Args:
        path: Path with forward slashes, `data/train-00000-of-00004.parquet` or
            `default/train/0000.parquet`.
        split: Name of the split.
    """
    place = PurePosixPath(path)
    sharded = re.fullmatch(rf"{re.escape(split)}-\d+-of-\d+\b.*", place.name)
    return bool(sharded) or place.stem == split or split in place.parts[:-1]


def fetch_hub_texts(name: str, split: str | None = None) -> list[Path]:
    """Fetch the Parquet files of a data set into the hub's cache, unless they are there already.

    Where the hub cannot be reached, as on many a cluster's node, those of the cache count, and a
    warning says so.

    Args:
        name: `hf:USER/NAME`, with `/FOLDER` if it has several data sets (`/wikitext-2-raw-v1`), and
            with `:SPLIT` for one split.
        split: Split, if the name has none; `None`: all of them.

    Returns:
        The files, in the order of their names.

    Raises:
        InputError: No such name, the hub cannot be reached, or has no such files.
    """
    import huggingface_hub  # takes a while
    from huggingface_hub.utils import HfHubHTTPError

    matched = _NAME.fullmatch(name.removeprefix(_HUB))
    if matched is None:
        raise InputError(f"expected hf:USER/NAME[/FOLDER][:SPLIT], found {shorten(name)}")
    split = matched["split"] or split
    try:
        for revision in (None, _CONVERTED):
            info = huggingface_hub.HfApi().dataset_info(matched["set"], revision=revision)
            listed = sorted(one.rfilename for one in info.siblings or ())
            files = [file for file in listed if file.endswith(".parquet")]
            if files:
                break
        return [
            Path(
                huggingface_hub.hf_hub_download(
                    matched["set"], file, repo_type="dataset", revision=info.sha
                )
            )
            for file in _chosen(name, files, matched["folder"], split)
        ]
    except InputError:
        raise
    except Exception as error:  # which HTTP library raises what depends on huggingface_hub
        cached = {} if isinstance(error, HfHubHTTPError) else _cached(matched["set"])
        if not cached:
            said = " ".join(str(error).split())
            raise InputError(f"{name}: cannot be fetched: {said}") from error
        chosen = _chosen(name, sorted(cached), matched["folder"], split)
        _logger.warning(
            "%s: the hub cannot be reached; read from its cache: %s", name, ", ".join(chosen)
        )
        return [cached[file] for file in chosen]


def _cached(data_set: str) -> dict[str, Path]:
    """Parquet files of a data set in the hub's cache, of its newest state, by name."""
    import huggingface_hub

    try:
        repositories = huggingface_hub.scan_cache_dir().repos
    except huggingface_hub.CacheNotFound:
        return {}
    states = [
        state
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ("dataset", data_set)
        for state in repository.revisions
    ]
    if not states:
        return {}
    newest = max(states, key=lambda state: state.last_modified)
    places = [one.file_path for one in newest.files if one.file_path.suffix == ".parquet"]
    return {place.relative_to(newest.snapshot_path).as_posix(): place for place in places}


def _chosen(name: str, files: Sequence[str], folder: str | None, split: str | None) -> list[str]:
    inside = [file for file in files if folder is None or file.startswith(f"{folder.strip('/')}/")]
    chosen = [file for file in inside if split is None or is_of_split(file, split)]
    folders = sorted({PurePosixPath(file).parts[0] for file in files if "/" in file})
    if not chosen:
        part = "Parquet files" if split is None else f"Parquet files of the split {split}"
        where = "" if folder is None else f" in {folder}"
        seen = f"; there are {shorten(', '.join(files))}" if files else ""
        raise InputError(f"{name}: expected {part}{where}, found none{seen}")
    if folder is None and len({PurePosixPath(file).parts[0] for file in chosen if "/" in file}) > 1:
        raise InputError(
            f"{name}: expected a folder, as it has several data sets: hf:USER/NAME/FOLDER with one "
            f"of {shorten(', '.join(folders))}"
        )
    return chosen
