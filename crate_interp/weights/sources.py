"""Sources of weights: the package itself, the Hugging Face hub, or a link for the user."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import huggingface_hub
import torch
from huggingface_hub.utils import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.sha import sha_fileobj
from timm.models import get_pretrained_cfg
from torch import nn

from crate_interp.errors import CheckpointError, InputError, errors_of
from crate_interp.files import read_json_as
from crate_interp.weights.hub import fetch_file
from crate_interp.weights.names import ModelName, resolve_name

__all__ = [
    "WeightSource",
    "checkpoints_folder",
    "fetch_source",
    "fetch_weights",
    "find_local_weights",
    "is_available_locally",
    "parameters_checksum",
    "weight_source",
    "weights_checksum",
]

_LOGGER = logging.getLogger(__name__)
_TIMM_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order timm looks for them


@dataclass(frozen=True)
class WeightSource:
    """Place of the weights of one `architecture.tag`; exactly one place is set.

    The hub's repository and file are read from the model's timm configuration; the manifest in
    `checkpoints/` adds what that cannot say: shipped files, links, sizes and checksums.

    Attributes:
        name: `architecture.tag`.
        file: A file that the package ships.
        hub_id: A repository of the Hugging Face hub, with `@revision` if not the main one.
        hub_files: Files of the repository that may hold the weights, in order of preference.
        link: Address where a person can get the file, for weights that no program can fetch.
        size_mb: Size of the file in megabytes (10^6 bytes), if known.
        sha256: Checksum of the file, if known.
    """

    name: str
    file: Path | None = None
    hub_id: str | None = None
    hub_files: tuple[str, ...] = ()
    link: str | None = None
    size_mb: int | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        if self.file:
            return "shipped with crate_interp"
        return f"hub {self.hub_id}" if self.hub_id else f"by hand: {self.link}"


def checkpoints_folder() -> Path:
    """Find the folder of the manifest and the shipped weights, installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "checkpoints", package.parent / "checkpoints"
    return installed if installed.is_dir() else checkout


def weight_source(name: ModelName) -> WeightSource | None:
    """Say where the weights of a model are; `None` if none are published under that name.

    Raises:
        CheckpointError: The manifest cannot be read.
    """
    entry: _Entry = _manifest().get(str(name), {})
    known: Any = {"name": str(name), **{key: entry.get(key) for key in ("size_mb", "sha256")}}
    if "file" in entry:
        return WeightSource(file=checkpoints_folder() / entry["file"], **known)
    # An architecture without a tag is not asked for: timm would answer with its first weights.
    config = get_pretrained_cfg(str(name)) if name.tag else None
    if config and config.hf_hub_id:
        files = (config.hf_hub_filename,) if config.hf_hub_filename else _TIMM_HUB_FILES
        return WeightSource(hub_id=config.hf_hub_id, hub_files=files, **known)
    link = entry.get("link") or (config and config.url)
    return WeightSource(link=str(link), **known) if link else None


def is_available_locally(name: str) -> bool:
    """Whether the weights of a model can be loaded now, without network, by name or alias.

    Raises:
        InputError: No such model.
    """
    return find_local_weights(weight_source(resolve_name(name))) is not None


def find_local_weights(source: WeightSource | None) -> Path | None:
    """Find the weight file of a source on this machine, in the package or the hub's cache."""
    if source is None:
        return None
    if source.file:
        return source.file if source.file.is_file() else None
    repository, revision = _hub_repository(source)
    for filename in source.hub_files:
        cached = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(cached, str):  # otherwise None, or a mark that the hub has no such file
            return Path(cached)
    return None


def fetch_weights(name: ModelName) -> Path:
    """Give the weight file of a model, from this machine or, once, from the hub into its cache.

    A downloaded file is checked against its SHA-256 before its first use.

    Raises:
        CheckpointError: No such weights are published, they can only be had by hand, they cannot
            be downloaded now, or what was downloaded is not the published file.
    """
    source = weight_source(name)
    if source is None:
        raise CheckpointError(
            f"no weights are published for {name}; give a file with `--weights FILE`, or take "
            "random ones with `--weights random` (in Python: weights=PATH, or pretrained=False)"
        )
    return fetch_source(source)


def fetch_source(source: WeightSource) -> Path:
    """Give the weight file of a source, as `fetch_weights` does.

    Raises:
        CheckpointError: As `fetch_weights`.
    """
    name = source.name
    if local := find_local_weights(source):
        return local
    if source.file:
        raise CheckpointError(f"{name}: the shipped weights are missing, expected {source.file}")
    if source.link:
        raise CheckpointError(
            f"{name}: these weights cannot be downloaded by a program. Get the file from "
            f"{source.link}, then give it with `--weights FILE` (in Python: weights=PATH)"
        )
    path = _download(source)
    _check_download(source, path)
    return path


def weights_checksum(path: Path) -> str:
    """Compute the SHA-256 of a weight file, as 64 hexadecimal digits.

    Raises:
        CheckpointError: The file cannot be read.
    """
    with errors_of(path), path.open("rb") as file:
        return sha_fileobj(file).hex()


def parameters_checksum(model: nn.Module) -> str:
    """Compute the SHA-256 of a model's parameters and buffers, wherever they came from.

    Names, types, shapes and values count, so that two files of the same weights in different
    layouts give the same checksum, and random weights have one, too.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Entry(TypedDict, total=False):
    file: str
    link: str
    size_mb: int | None
    sha256: str | None
    licence: str


def _manifest() -> dict[str, _Entry]:
    path = checkpoints_folder() / "manifest.json"
    try:
        return read_json_as(path, dict[str, _Entry])
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise CheckpointError(f"{path}: the manifest of weights cannot be read: {reason}") from None


def _hub_repository(source: WeightSource) -> tuple[str, str | None]:
    repository, _, revision = (source.hub_id or "").partition("@")
    return repository, revision or None


def _download(source: WeightSource) -> Path:
    repository, revision = _hub_repository(source)
    size = f" ({source.size_mb} MB)" if source.size_mb else ""
    _LOGGER.warning("downloading the weights of %s%s from %s", source.name, size, repository)
    hub_logging.disable_propagation()  # it prints its lines itself
    for filename in source.hub_files:
        try:
            return fetch_file(repository, filename, revision)
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            reason = f"the hub cannot be reached: {error.__cause__ or error}"
            if huggingface_hub.constants.HF_HUB_OFFLINE:
                reason = "HF_HUB_OFFLINE is set, and the file is not in the cache"
            raise _download_error(source, filename, reason) from error
        except EntryNotFoundError:
            _LOGGER.info("%s has no %s", repository, filename)
        except HfHubHTTPError as error:
            raise _download_error(source, filename, str(error)) from error
        except Exception as error:  # what HTTP library raises depends on huggingface_hub's version
            reason = f"the hub cannot be reached: {error}"
            raise _download_error(source, filename, reason) from error
    raise _download_error(source, " or ".join(source.hub_files), "the hub has no such file")


def _download_error(source: WeightSource, filename: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{source.name}: cannot download {filename!r} of the hub repository {source.hub_id!r}: "
        f"{' '.join(reason.split())}. Get https://huggingface.co/{source.hub_id}/resolve/main/"
        f"{filename} elsewhere, and give the file with `--weights FILE` (in Python: weights=PATH)"
    )


def _check_download(source: WeightSource, path: Path) -> None:
    # The cache keeps a large file under its entity tag, which is the hub's own SHA-256 of it.
    stored = path.resolve()
    tag = re.fullmatch("[0-9a-f]{64}", stored.name)
    expected = source.sha256 or (tag and tag[0])
    if expected and (checksum := weights_checksum(stored)) != expected:
        stored.unlink()
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{source.name}: the download of {path.name} from {source.hub_id} is not the published "
            f"file: expected SHA-256 {expected}, found {checksum}; it was removed, try again"
        )
