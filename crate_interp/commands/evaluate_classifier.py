"""Top-1 and top-5 accuracy of a classifier's head, or of names as zero-shot classes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from crate_interp import evaluation, models, training, weights
from crate_interp.commands.real_labels import read_real_labels
from crate_interp.errors import InputError
from crate_interp.files import checksum_of, read_bytes
from crate_interp.options import check_ranges, option
from crate_interp.options.choices import OnError, Pictures, Precision
from crate_interp.options.ranges import AtLeastOne, ReadProcesses, Side
from crate_interp.runs.command import Command
from crate_interp.runs.options import WeightsOptions
from crate_interp.runs.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from crate_interp.evaluation import AccuracyScore
    from crate_interp.models.backbones import Backbone
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.training.data import Pictures as LabelledPictures

__all__ = ["EvaluateClassifier"]


class _Results(TypedDict):
    top1: float
    top5: float


@dataclass(frozen=True, kw_only=True)
class EvaluateClassifier(Command, WeightsOptions):
    """Measure the accuracy of a head, or zero-shot (CLIP)."""

    group: ClassVar[str] = "score"

    model: str = option(
        "model name, alias, our safetensors file, or hf-hub:USER/NAME; see `models`"
    )
    data: str = option(
        "folder of class folders (the split below it, or not), whose sorted names are the labels "
        "0, 1, ... (of `.in1k` heads: the 1000 WordNet ids of ImageNet-1K, sorted); or torch/NAME, "
        "hfds/NAME, or `scenes`: held-out built-in ones, as training draws them"
    )
    weights: Path | None = option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    data_root: Path | None = option("where torch/NAME or hfds/NAME lies", None)
    data_args: dict[str, Any] = option(
        "more arguments of timm's create_dataset (JSON, for instance '{\"download\": true}')", {}
    )
    split: str = option("part of the data", "validation")
    classes: Path | None = option(
        "zero-shot (CLIPA and CLIP): file of the class names, one a line, in label order (scenes: "
        "their own names)",
        None,
    )
    templates: list[str] = option(
        "zero-shot: prompts, {} being the class name; their embeddings are averaged",
        ["a photo of a {}."],
        several=str,
    )
    real: Path | None = option(
        "file real.json of ImageNet-ReaL: an image has all classes of its list, any of which is "
        "right; images without one are left out",
        None,
    )
    size: Side | None = option("side of the square input, pixels (default: the model's own)", None)
    batch_size: Pictures = option("images in a forward pass", 64)
    workers: ReadProcesses = option("processes that read images", 2, presentation=True)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = option("number type of the forward pass", "float32")
    limit: AtLeastOne | None = option("only so many images, evenly spread over the data", None)
    on_error: OnError = option("what an image that cannot be read does", "raise")
    output: Path | None = option("JSON file of the result", None, presentation=True)

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give top-1 and top-5 accuracy."""
        from crate_interp.runs.finished_run import Comparable

        results = run.results(_Results)
        return Comparable({"top-1": results["top1"], "top-5": results["top5"]})

    def run(self) -> int:
        """Print the accuracy, and write it as JSON if asked.

        Returns:
            0, or 1 if an image could not be read and was skipped.

        Raises:
            InputError: Model and data do not fit, or one of them cannot be had or read.
        """
        from crate_interp.data import scene_categories
        from crate_interp.runs.inference import describe_model, describe_weights, device_of

        device = device_of(self.device)
        names = None if self.classes is None else _read_classes(self.classes)
        if names is None and self.data == "scenes" and _is_clip_file(self):
            names = [category.name for category in scene_categories.CATEGORIES]
        classifier = _head(self, device) if names is None else _zero_shot(self, names, device)
        recorded = training.recorded_recipe(classifier.path)
        preparation = training.preparation_of(
            self.model, classifier.vision, self.data, self.size, recorded
        )
        recipe = training.Recipe(
            model=self.model,
            data=self.data,
            data_root=None if self.data_root is None else str(self.data_root),
            data_args=self.data_args,
            train_split=self.split,
            validation_split=self.split,
            num_classes=classifier.outputs,
            image_size=preparation["input_size"][-1],
            steps=1,
        )
        pictures = training.open_held_out(recipe, recorded)
        if len(pictures.classes) != classifier.outputs:
            raise InputError(
                f"data {self.data}: found {len(pictures.classes)} classes, expected as many as "
                f"{self.classes or f'the head of {self.model}'} has, {classifier.outputs}"
            )
        real = None if self.real is None else read_real_labels(self.real, pictures)
        if self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)  # or fail before the work
        score, skipped = _measure(self, classifier, pictures, real, preparation, device)
        top1, top5 = score.accuracy[1], score.accuracy[5]
        result: dict[str, Any] = {
            "command": self.command_name(),
            "model": describe_model(self.model, self.weights),
            "weights": describe_weights(classifier.path),
            "data": self.data,
            "split": self.split,
            "count": score.pictures,
            "top1": top1,
            "top5": top5,
            "skipped": skipped,
            "preparation": preparation,
            "templates": None if names is None else self.templates,
            "precision": self.precision,
            "device": device.type,
        }
        decisive = ("model", "data", "split", "preparation", "templates", "precision", "device")
        result["settings"] = {"limit": self.limit} | {name: result[name] for name in decisive}
        if self.real is not None:
            result["real"] = {"file": self.real.name, "sha256": checksum_of(read_bytes(self.real))}
            result["settings"]["real"] = result["real"]["sha256"]
        print(
            f"{result['model']} on {self.data}, {self.split}: top-1 {100 * top1:.2f} %, "
            f"top-5 {100 * top5:.2f} % of {score.pictures} images"
        )
        if self.output is not None:
            self.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(self.output)
        return 1 if skipped else 0


@dataclass(frozen=True)
class _Classifier:
    """A classifier to measure.

    Attributes:
        score_of: Computes the scores of the classes for normalised images.
        vision: Vision transformer of the classifier, for its sizes.
        outputs: Number of classes.
        path: Weight file, `None` for random weights.
    """

    score_of: Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B C"]]
    vision: Backbone
    outputs: int
    path: Path | None


def _head(options: EvaluateClassifier, device: torch.device) -> _Classifier:
    from crate_interp.runs.inference import load_model

    model, path = load_model(options)
    if getattr(model, "projection_head", False):
        raise InputError(
            f"{options.model}: its head gives embeddings, not classes: name the classes with "
            "--classes FILE"
        )
    return _Classifier(model.to(device), model, model.num_classes, path)


def _zero_shot(
    options: EvaluateClassifier, names: Sequence[str], device: torch.device
) -> _Classifier:
    from crate_interp.runs.inference import loading_options

    if options.weights == weights.RANDOM:
        raise InputError("weights random: zero-shot classes need a trained text tower")
    arguments = {**options.model_args, **loading_options(options)}
    model = weights.load_clip(options.model, options.weights, **arguments).to(device)
    texts = models.embed_classes(model, names, options.templates)

    def score_of(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        return model.zero_shot(model.encode_image(images).float(), texts)

    path = weights.resolve_weights(options.model, options.weights)
    return _Classifier(score_of, model.visual, len(names), path)


def _measure(
    options: EvaluateClassifier,
    classifier: _Classifier,
    pictures: LabelledPictures,
    real: Mapping[int, Sequence[int]] | None,
    preparation: Mapping[str, Any],
    device: torch.device,
) -> tuple[AccuracyScore, list[str]]:
    """The accuracy, and why each image that was skipped could not be read."""
    import torch

    usable = range(len(pictures)) if real is None else sorted(real)
    count = min(len(usable), options.limit or len(usable))
    indices = [usable[position * len(usable) // count] for position in range(count)]
    batches = training.read_prepared(
        pictures, indices, preparation, options.batch_size, options.workers
    )
    ranks: list[int] = []
    skipped: list[str] = []
    with (
        torch.inference_mode(),
        progress_bar(desc="evaluate", total=count, unit="image") as progress,
    ):
        for first, items in zip(range(0, count, options.batch_size), batches, strict=True):
            for error in (item for item in items if isinstance(item, InputError)):
                if options.on_error == "raise":
                    raise error
                skipped.append(str(error))
                progress.write(f"skipped: {error}", file=sys.stderr)
            read = [
                (item[0], [item[1]] if real is None else real[index])
                for index, item in zip(indices[first : first + len(items)], items, strict=True)
                if not isinstance(item, InputError)
            ]
            if read:
                images = torch.stack([image for image, _ in read]).to(device)
                with models.inference_precision(options.precision, classifier.vision):
                    scores = classifier.score_of(images)
                labels = [classes for _, classes in read]
                try:
                    ranks += evaluation.best_ranks(scores.float().cpu(), labels)
                except InputError as error:  # huge weights give numbers that are none
                    raise InputError(f"{options.weights or options.model}: {error}") from error
            progress.update(len(items))
    return evaluation.accuracy_score(ranks), skipped


def _is_clip_file(options: EvaluateClassifier) -> bool:
    """Whether the model's file holds a text tower, as our training writes one."""
    if options.weights == weights.RANDOM:
        return False
    from crate_interp.weights.files import read_metadata

    path = weights.resolve_weights(options.model, options.weights)
    return "text_num_heads" in read_metadata(path)


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
