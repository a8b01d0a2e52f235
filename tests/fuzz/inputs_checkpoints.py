"""Weight files of every layout, and the ways in which they come in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch

from crate_interp.cli import main
from crate_interp.weights import ModelRecord, load_backbone, load_clip, load_mae, read_checkpoint
from crate_interp.weights import load as weights_load
from crate_interp.weights.files import write_safetensors
from tests.fuzz.frame import Accepted

__all__ = ["convert", "evaluate", "load", "load_of_hub", "load_whole", "make", "make_of_hub"]

REFERENCE = Path(__file__).parents[1] / "reference"
SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
TRAINING = {
    "recipe": {"model": "crate_base_patch8_224", "data": "scenes", "image_size": 32, "steps": 9}
    | {"seed": 1, "scene_objects": [1, 2], "crop_area": None, "interpolation": "bicubic"},
    "steps": 9,
    "accuracy": 0.5,
}
FILES = {
    "weights.npz": ("crate_alpha_jax_d48_l2_h3_p8_i32_c10.npz", "crate_alpha_B8"),
    "weights.pth": ("crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth", "crate_alpha_B8"),
    "weights.pth.tar": ("crate_d48_l2_h3_p8_i32_c10.pth.tar", "crate_B8"),
    "legacy.pth": ("crate_d48_l2_h3_p8_i32_c10.pth.tar", "crate_B8"),
    "mae.pth": ("crate_mae_d48_l2_h3_p8_i32.pth", "crate_mae_B16"),
    "clip.pth": (
        "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2.pth",
        "crate_alpha_CLIPA_L14",
    ),
}


def make(name: str) -> Callable[[Path], None]:
    """Make a target's `make`: one file, of the table above or `ours.safetensors`."""

    def write(folder: Path) -> None:
        source, model = FILES.get(name, FILES["weights.pth.tar"])
        if name == "legacy.pth":
            whole = torch.load(REFERENCE / source, weights_only=True)
            torch.save(whole, folder / name, _use_new_zipfile_serialization=False)
        elif name == "ours.safetensors":
            backbone = load_backbone(model, weights=REFERENCE / source, **SIZES)
            tensors = backbone.state_dict()
            tensors |= {key: tensors[key][:8] for key in ("head.weight", "head.bias")}
            mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
            record = ModelRecord("crate_base_patch8_224", SIZES, 8, mean, std).to_metadata()
            write_safetensors(
                folder / name,
                tensors,
                record | {"classes": json.dumps(["a"] * 8), "training": json.dumps(TRAINING)},
            )
        elif name == "clip.pth":  # some numbers of the reference were never set
            whole = torch.load(REFERENCE / source, weights_only=True)
            torch.save(
                {key: value.nan_to_num(0, 0, 0) for key, value in whole.items()}, folder / name
            )
        else:
            shutil.copy(REFERENCE / source, folder / name)

    return write


def load(folder: Path) -> None:
    """Load the file as a backbone; ours says what it is, others are told."""
    path = next(folder.iterdir())
    if path.suffix == ".safetensors":
        model = load_backbone(path)
    else:
        model = load_backbone(FILES[path.name][1], weights=path, **SIZES)
    _refuse_infinite(model)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))


def load_whole(folder: Path) -> None:
    """Load a model of two halves: an autoencoder, or a text tower beside an image tower."""
    path = next(folder.iterdir())
    loader = load_mae if path.name == "mae.pth" else load_clip
    _refuse_infinite(loader(FILES[path.name][1], weights=path, **SIZES))


def convert(folder: Path) -> int:
    """Convert on the command line, and read what came of it."""
    path = next(folder.iterdir())
    arguments = ["--model", FILES.get(path.name, FILES["weights.pth.tar"])[1]]
    arguments += ["--model-args", '{"num_heads": 3}']
    code = main(["convert", path.name, "out.safetensors", *arguments])
    if code == 0:
        tensors = read_checkpoint(folder / "out.safetensors").state_dict.values()
        if not all(tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()):
            raise Accepted("NaN or infinity in the weights written")
    return code


def evaluate(folder: Path) -> int:
    """Score a classifier of ours, whose file says how its pictures were prepared."""
    data = ["--data", "scenes", "--limit", "2", "--workers", "0", "--batch-size", "1"]
    return main(["evaluate-classifier", "--model", "./ours.safetensors", *data])


def _refuse_infinite(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise Accepted(f"NaN or infinity in {name}")


def make_of_hub(folder: Path) -> None:
    """A model as another program puts it on the hub: the file does not know its model."""
    make("ours.safetensors")(folder)
    tensors = read_checkpoint(folder / "ours.safetensors").state_dict
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "ours.safetensors").unlink()
    config = {
        "architecture": "crate_base_patch8_224",
        "num_classes": 8,
        "model_args": SIZES,
        "pretrained_cfg": {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "crop_pct": 0.9},
    }
    (folder / "config.json").write_text(json.dumps(config))


def load_of_hub(folder: Path) -> None:
    """Load it, as if the hub had answered with these files."""
    files = (folder / "model.safetensors", folder / "config.json")
    with patch.object(weights_load, "fetch_from_hub", lambda name: files):
        model = load_backbone("hf-hub:you/theirs")
    _refuse_infinite(model)
