"""Puts weight files on the Hugging Face hub, in timm's own format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub

from crate_interp.errors import InputError, errors_of
from crate_interp.files import parse_json_as
from crate_interp.models.backbones import blocks_of, input_hw_of
from crate_interp.weights.create import create_on_meta
from crate_interp.weights.files import read_checkpoint
from crate_interp.weights.hub import CONFIG, HUB, WEIGHTS, asked, check_repository
from crate_interp.weights.load import load_backbone
from crate_interp.weights.names import ModelName

__all__ = ["push_to_hub"]

# What timm's configuration says of the input; the rest of it says where the weights came from.
_OF_INPUT = (
    *("test_input_size", "interpolation", "crop_pct", "crop_mode"),
    *("mean", "std", "fixed_input_size", "first_conv", "classifier"),
)
_CARD = """---
library_name: timm
pipeline_tag: {task}
tags:
- timm
- crate-interp
---
# {name}

{architecture}, {classes}. The architecture is one of crate_interp or timm:

```python
import crate_interp, timm

model = timm.create_model("{hub}{repo_id}", pretrained=True)
model = crate_interp.from_pretrained("{repo_id}")
```
"""


def push_to_hub(weights: str | os.PathLike[str], repo_id: str, *, private: bool = False) -> str:
    """Put a model that was trained or converted here on the hub, in one commit.

    The file goes there as it is, with its record; `config.json` is made of it, and a model card if
    there is none yet. The access token is that of `hf auth login`, or `HF_TOKEN`.

    Args:
        weights: One of our safetensors files, which knows its model.
        repo_id: Repository, `USER/NAME`; made if there is none.
        private: Whether a new repository is private.

    Returns:
        Address of the commit.

    Raises:
        InputError: No name of a repository, or a file without a record of its model.
        CheckpointError: The file cannot be read, or the hub cannot be reached or refuses it.
    """
    check_repository(repo_id)
    path = Path(weights)
    config = _config_of(path)
    api = huggingface_hub.HfApi(library_name="timm")

    def commit() -> str:
        api.create_repo(repo_id, private=private, exist_ok=True)
        files: dict[str, bytes | Path] = {
            WEIGHTS: path,
            CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        }
        if not api.file_exists(repo_id, "README.md"):
            files["README.md"] = _card_of(config, repo_id).encode()
        operations = [
            huggingface_hub.CommitOperationAdd(name, content) for name, content in files.items()
        ]
        message = f"Add {config['architecture']}"
        return str(api.create_commit(repo_id, operations, commit_message=message).commit_url)

    return asked(f"{repo_id}: cannot be pushed", commit)


def _config_of(path: Path) -> dict[str, Any]:
    """Configuration of one of our files, as timm reads it."""
    with errors_of(path):
        checkpoint = read_checkpoint(path)
        record = checkpoint.record
        if record is None:
            raise InputError(
                "does not say which model it is: `crate-interp convert` writes a file that does"
            )
    model: Any = load_backbone(path)
    architecture = record.model.partition(".")[0]
    sizes = dict(record.model_args)
    # timm does not know the tag, which may have brought another number of heads.
    heads, plain = _heads_of(model), create_on_meta(ModelName(architecture, None), **sizes)
    if _heads_of(plain) != heads:
        sizes["num_heads"] = heads
    input_size = (model.in_chans, *input_hw_of(model))
    known = {key: model.pretrained_cfg[key] for key in _OF_INPUT if key in model.pretrained_cfg}
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": sizes,
        "pretrained_cfg": {**known, "input_size": input_size, "num_classes": model.num_classes},
    }
    if "classes" in checkpoint.metadata:
        names = parse_json_as(checkpoint.metadata["classes"], list[str], f"{path}: classes")
        config["label_names"] = names
    return config


def _heads_of(model: Any) -> int:
    first: Any = blocks_of(model)[0]
    return int(first.attn.num_heads)


def _card_of(config: dict[str, Any], repo_id: str) -> str:
    classes = config["num_classes"]
    return _CARD.format(
        task="image-classification" if classes else "image-feature-extraction",
        name=repo_id.rpartition("/")[2],
        architecture=config["architecture"],
        classes=f"{classes} classes" if classes else "without a classifier",
        hub=HUB,
        repo_id=repo_id,
    )
