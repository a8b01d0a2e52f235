"""The command `evaluate-classifier`: top-1 and top-5 accuracy of a head, or zero-shot."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from jaxtyping import Float
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crate_interp.config import EvaluateClassifierConfig
from crate_interp.errors import InputError
from crate_interp.evaluation import AccuracyScore, accuracy_score, class_ranks
from crate_interp.files import checked_as, parse_json_as
from crate_interp.models import embed_classes, inference_precision
from crate_interp.models.backbones import Backbone
from crate_interp.runs.inference import (
    RANDOM,
    describe_model,
    describe_weights,
    device_of,
    load_model,
    loading_options,
)
from crate_interp.runs.progress import progress_bar
from crate_interp.training import Recipe
from crate_interp.training.augmentation import validation_preparation
from crate_interp.training.data import HELD_OUT, DatasetPictures, Pictures, Scenes
from crate_interp.weights import load_clip, resolve_weights
from crate_interp.weights.files import read_metadata

__all__ = ["run"]

# Folders that hold a part of a data set, by timm's names.
_SPLITS = ({"train", "training"}, {"val", "valid", "validation", "eval", "evaluation"}, {"test"})
# Keys of a recipe that say how its validation images are prepared, and which scenes they are.
_PREPARATION = ("data", "image_size", "crop_area", "crop_pct", "interpolation")
_SCENES = ("seed", "scene_objects", "scene_object_size", "validation_scenes")

Preparation = dict[str, Any]
Item = tuple[Float[Tensor, "3 H W"], int]


def run(config: EvaluateClassifierConfig) -> int:
    """Print the accuracy, and write it as JSON if asked.

    Returns:
        0, or 1 if an image could not be read and was skipped.

    Raises:
        InputError: Model and data do not fit, or one of them cannot be had or read.
    """
    device = device_of(config.device)
    names = None if config.classes is None else _read_classes(config.classes)
    classifier = _head(config, device) if names is None else _zero_shot(config, names, device)
    recorded = _recorded_recipe(classifier.path)
    preparation = _preparation(config, classifier.vision, recorded)
    pictures = _open_pictures(config, recorded, preparation, classifier.outputs)
    if len(pictures.classes) != classifier.outputs:
        raise InputError(
            f"data {config.data}: found {len(pictures.classes)} classes, expected as many as "
            f"{config.classes or f'the head of {config.model}'} has, {classifier.outputs}"
        )
    if config.output is not None:
        config.output.parent.mkdir(parents=True, exist_ok=True)  # or fail before the work
    score, skipped = _measure(config, classifier, pictures, preparation, device)
    top1, top5 = score.accuracy[1], score.accuracy[5]
    result = {
        "model": describe_model(config.model, config.weights),
        "weights": describe_weights(classifier.path),
        "data": config.data,
        "split": config.split,
        "count": score.pictures,
        "top1": top1,
        "top5": top5,
        "skipped": skipped,
        "preparation": preparation,
        "templates": None if names is None else config.templates,
        "precision": config.precision,
        "device": device.type,
    }
    print(
        f"{result['model']} on {config.data}, {config.split}: top-1 {100 * top1:.2f} %, "
        f"top-5 {100 * top5:.2f} % of {score.pictures} images"
    )
    if config.output is not None:
        config.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(config.output)
    return 1 if skipped else 0


@dataclass(frozen=True)
class _Classifier:
    """What is measured.

    Attributes:
        score_of: Normalised images to the scores of the classes.
        vision: The vision transformer in it, for its sizes.
        outputs: Number of classes.
        path: Weight file, `None` for random weights.
    """

    score_of: Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B C"]]
    vision: Backbone
    outputs: int
    path: Path | None


def _head(config: EvaluateClassifierConfig, device: torch.device) -> _Classifier:
    model, path = load_model(config)
    if getattr(model, "projection_head", False):
        raise InputError(
            f"{config.model}: its head gives embeddings, not classes: name the classes with "
            "--classes FILE"
        )
    return _Classifier(model.to(device), model, model.num_classes, path)


def _zero_shot(
    config: EvaluateClassifierConfig, names: Sequence[str], device: torch.device
) -> _Classifier:
    if config.weights == RANDOM:
        raise InputError("weights random: zero-shot classes need a trained text tower")
    options = {**config.model_args, **loading_options(config)}
    model = load_clip(config.model, config.weights, **options).to(device)
    texts = embed_classes(model, names, config.templates)

    def score_of(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        return model.zero_shot(model.encode_image(images).float(), texts)

    path = resolve_weights(config.model, config.weights)
    return _Classifier(score_of, model.visual, len(names), path)


class _Prepared(Dataset[Item | InputError]):
    """Images as the model takes them; one that cannot be read is its error."""

    def __init__(
        self, pictures: Pictures, indices: Sequence[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self._pictures, self._indices, self._transform = pictures, indices, transform

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Item | InputError:
        try:
            image, label = self._pictures[self._indices[position]]
        except InputError as error:
            return error
        return self._transform(image), label


def _measure(
    config: EvaluateClassifierConfig,
    classifier: _Classifier,
    pictures: Pictures,
    preparation: Preparation,
    device: torch.device,
) -> tuple[AccuracyScore, list[str]]:
    """The accuracy, and why each image that was skipped could not be read."""
    count = min(len(pictures), config.limit or len(pictures))
    indices = [position * len(pictures) // count for position in range(count)]
    loader: DataLoader[Any] = DataLoader(
        _Prepared(pictures, indices, create_transform(**preparation)),
        batch_size=config.batch_size,
        num_workers=config.workers,
        collate_fn=list,
    )
    ranks: list[int] = []
    skipped: list[str] = []
    with (
        torch.inference_mode(),
        progress_bar(desc="evaluate", total=count, unit="image") as progress,
    ):
        for items in loader:
            for error in (item for item in items if isinstance(item, InputError)):
                if config.on_error == "raise":
                    raise error
                skipped.append(str(error))
                progress.write(f"skipped: {error}", file=sys.stderr)
            read = [item for item in items if not isinstance(item, InputError)]
            if read:
                images = torch.stack([image for image, _ in read]).to(device)
                with inference_precision(config.precision, classifier.vision):
                    scores = classifier.score_of(images)
                labels = torch.tensor([label for _, label in read])
                try:
                    ranks += class_ranks(scores.float().cpu(), labels)
                except InputError as error:  # huge weights give numbers that are none
                    raise InputError(f"{config.weights or config.model}: {error}") from error
            progress.update(len(items))
    return accuracy_score(ranks), skipped


def _read_classes(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not names:
        raise InputError(f"{path}: expected class names, one a line, found none")
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise InputError(f"{path}, line {number}: expected a class name, found none")
    return [name.strip() for name in names]


def _recorded_recipe(path: Path | None) -> Mapping[str, Any] | None:
    """The recipe that our training wrote into a weight file."""
    training = None if path is None else read_metadata(path).get("training")
    if training is None:
        return None
    source = f"{path}: its record of the training"
    recipe = parse_json_as(training, dict[str, Any], source).get("recipe")
    if not isinstance(recipe, dict):
        return None  # `convert` keeps what texts lie beside weights, and one may have that name
    hints = get_type_hints(Recipe)
    return {
        key: checked_as(value, hints[key], f"{source}: {key}")
        for key, value in _keys(recipe, (*_PREPARATION, *_SCENES)).items()
    }


def _preparation(
    config: EvaluateClassifierConfig, model: Backbone, recorded: Mapping[str, Any] | None
) -> Preparation:
    """Arguments of timm's transform: those of the model's training, else of its configuration."""
    own = resolve_model_data_config(model, use_test_size=True)
    patches: Any = model.patch_embed
    size = int(patches.img_size[-1])
    if size == getattr(model, "pretrained_cfg", {}).get("input_size", (0,))[-1]:
        size = int(own["input_size"][-1])  # the test size, which another training size has not
    found = {name: own[name] for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
    if recorded is not None:
        recipe = Recipe(model=config.model, steps=1, **_keys(recorded, _PREPARATION))
        size = recipe.image_size
        found |= validation_preparation(recipe)
    elif config.data == "scenes":
        found["crop_pct"] = 1.0
    size = config.size or size
    if any(size % patch for patch in patches.patch_size):
        raise InputError(
            f"size {size}: expected a multiple of the patch of {patches.patch_size[0]} pixels"
        )
    return {**found, "input_size": (3, size, size)}


def _keys(recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: recipe[name] for name in names if name in recipe}


def _open_pictures(
    config: EvaluateClassifierConfig,
    recorded: Mapping[str, Any] | None,
    preparation: Preparation,
    outputs: int,
) -> Pictures:
    root = None if config.data_root is None else str(config.data_root)
    recipe = Recipe(
        model=config.model,
        data=config.data,
        data_root=root,
        data_args=config.data_args,
        train_split=config.split,
        validation_split=config.split,
        num_classes=outputs,
        image_size=preparation["input_size"][-1],
        steps=1,
    )
    if config.data == "scenes":
        recipe = dataclasses.replace(recipe, **_keys(recorded or {}, _SCENES))
        return Scenes(recipe, HELD_OUT, recipe.validation_scenes)
    _refuse_missing_split(config)
    return DatasetPictures(recipe, config.split)


def _refuse_missing_split(config: EvaluateClassifierConfig) -> None:
    # timm then takes the whole folder, other splits and all, without a word.
    folder = Path(config.data)
    if not folder.is_dir():
        return
    there = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    names = next((names for names in _SPLITS if config.split in names), {config.split})
    if there and there <= set().union(*_SPLITS) and not there & names:
        raise InputError(f"{folder}: expected a folder {config.split!r}, found {sorted(there)}")
