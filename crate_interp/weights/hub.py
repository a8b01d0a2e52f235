"""Models on the Hugging Face hub in timm's own format: `config.json` and `model.safetensors`.

timm loads them by the same name, `hf-hub:USER/NAME`, once this package is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import huggingface_hub
from huggingface_hub.utils import HFValidationError, validate_repo_id

from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.files import read_json_as
from crate_interp.weights.names import resolve_name
from crate_interp.weights.records import ModelRecord

__all__ = [
    "CONFIG",
    "HUB",
    "WEIGHTS",
    "asked",
    "check_repository",
    "fetch_file",
    "fetch_from_hub",
    "is_on_hub",
    "record_of_config",
]

HUB = "hf-hub:"  # begins the name of a model on the hub, as in timm

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_T = TypeVar("_T")


class _Pretrained(TypedDict):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Arguments(TypedDict, total=False):
    model_args: dict[str, Any]


class _Config(_Arguments):
    architecture: str
    num_classes: int
    pretrained_cfg: _Pretrained


def fetch_from_hub(name: str) -> tuple[Path, Path]:
    """Fetch a model into the hub's cache, unless it is there already.

    Args:
        name: `hf-hub:USER/NAME`, with `@REVISION` if not the main branch.

    Returns:
        The weight file, and the configuration.

    Raises:
        InputError: No name of a repository.
        CheckpointError: The hub cannot be reached, or has no such files.
    """
    repo_id, _, revision = name.removeprefix(HUB).partition("@")
    check_repository(repo_id)

    def fetch() -> tuple[Path, Path]:
        weights, config = (
            fetch_file(repo_id, file, revision or None) for file in (WEIGHTS, CONFIG)
        )
        return weights, config

    return asked(f"{name}: cannot be fetched", fetch)


def fetch_file(repo_id: str, filename: str, revision: str | None = None) -> Path:
    """Fetch a file of the hub, or find it in the cache; raises what huggingface_hub raises.

    Args:
        repo_id: Repository, `USER/NAME`.
        filename: Name of the file in it.
        revision: Branch, tag or commit; `None`: the main branch.
    """
    cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, revision=revision)
    if not isinstance(cached, str):
        # Asked once: without a network, what follows asks six times, for half a minute.
        url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision)
        huggingface_hub.get_hf_file_metadata(url)
    return Path(huggingface_hub.hf_hub_download(repo_id, filename, revision=revision))


def record_of_config(path: Path) -> ModelRecord:
    """Make the record of a model of timm's configuration.

    Args:
        path: The file `config.json`.

    Raises:
        InputError: It is no such configuration, or of a model that is not known.
    """
    config = read_json_as(path, _Config)
    record = ModelRecord(
        model=config["architecture"],
        model_args=config.get("model_args", {}),
        num_classes=config["num_classes"],
        mean=config["pretrained_cfg"]["mean"],
        std=config["pretrained_cfg"]["std"],
    )
    with errors_of(path):
        resolve_name(record.model)
        ModelRecord.of(record.to_metadata())  # checks ranges
    return record


def is_on_hub(name: object) -> bool:
    """Whether a name of a model is that of a repository of the hub."""
    return isinstance(name, str) and name.startswith(HUB)


def check_repository(repo_id: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        InputError: It is none.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(
            f"expected a repository of the hub, USER/NAME, found {shorten(repo_id)}"
        ) from None


def asked(failure: str, ask: Callable[[], _T]) -> _T:
    """Ask the hub for something.

    Args:
        failure: Beginning of the message where the hub does not answer, or refuses it.
        ask: Asks.

    Raises:
        CheckpointError: The hub cannot be reached, or refuses it.
    """
    try:
        return ask()
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:  # which HTTP library raises what depends on huggingface_hub
        raise CheckpointError(f"{failure}: {' '.join(str(error).split())}") from error
