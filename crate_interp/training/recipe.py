"""A recipe: everything that decides the weights a training run ends with."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from crate_interp.errors import InputError, shorten
from crate_interp.options.ranges import (
    BelowOne,
    Fraction,
    Natural,
    Range,
    ReadProcesses,
    Seed,
    Share,
    check_ranges,
)

__all__ = ["Recipe", "Stage"]

Positive = Annotated[int, Range(0, 1_000_000_000, (0,))]
Pixels = Annotated[int, Range(0, 16_384, (0,))]
Classes = Annotated[int, Range(0, 1_000_000)]
Objects = Annotated[int, Range(1, 100)]
Diameter = Annotated[float, Range(0, 2, (0,))]
Epochs = Annotated[float, Range(0, 1_000_000, (0,))]
WarmUp = Annotated[float, Range(0, 1_000_000)]
Rate = Annotated[float, Range(0, 100, (0,))]
Strength = Annotated[float, Range(0, 100)]
Norm = Annotated[float, Range(0, 1e9, (0,))]
Hidden = Annotated[float, Range(0, 1, (0, 1), "between 0 and 1")]
# Metadata of the keys that one objective alone has.
_CLASSIFICATION = {"task": "classification"}
_RECONSTRUCTION = {"task": "reconstruction"}
# What timm's augmentation is called; the numbers of its operations are bounded by their digits.
_SPREAD = r"mstd\d{1,3}(\.\d{1,4})?"
_AUGMENTATION = re.compile(
    rf"(original|originalr|v0|v0r|3a)(-{_SPREAD})*"
    rf"|rand(-(m\d\d?|n\d\d?|p(0(\.\d{{1,4}})?|1(\.0)?)|{_SPREAD}|mmax[1-9]\d?|inc[01]|t3a|tweights))*"
    rf"|augmix(-(m\d\d?|w[1-9]|d\d?|a[1-9]\d?|b[01]|{_SPREAD}))*"
)
# Arguments of a model that are keys of their own.
_OF_THE_RECIPE = {
    "num_classes": "num_classes",
    "drop_path_rate": "drop_path",
    "patch_drop_rate": "patch_drop",
    "img_size": "image_size",
}


@dataclass(frozen=True)
class Stage:
    """A part of a curriculum; the keys but for `share` replace those of the recipe, if given.

    Attributes:
        share: Share of the run's updates, relative to the shares of the other stages.
        image_size: Side of the square input, pixels.
        scene_objects: Fewest and most objects in a scene.
        scene_object_size: Smallest and largest diameter of an object, shares of the image.
        patch_drop: Share of the patches that an update leaves out.
    """

    share: Norm
    image_size: Pixels | None = None
    scene_objects: tuple[Objects, Objects] | None = None
    scene_object_size: tuple[Diameter, Diameter] | None = None
    patch_drop: BelowOne | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run; a YAML file has the same keys.

    Attributes:
        model: Model name or alias, without weights.
        model_args: Sizes that differ from the named model's.
        initial_weights: A weight file, the name of a model with published weights, or `published`:
            those of `model`. Patches and positions of another size are resampled; the head begins
            anew if the patch size or the number of classes is another. `None`: random.
        task: Name of the objective: `classification` names what is in an image, `reconstruction`
            predicts its hidden patches, as a CRATE-MAE does, and does not look at classes. Keys
            that one objective alone has are refused in recipes of others.
        mask_ratio: Share of the patches that reconstruction hides.
        normalised_target: Whether reconstruction predicts each patch less its mean and over its
            standard deviation.
        data: `scenes`; a folder of class folders (with `train` and `validation` below it, or not);
            a folder of `train.tar` and `validation.tar` with class folders, or such a tar file;
            `wds/FOLDER` of WebDataset's shards; `torch/NAME` of torchvision; or `hfds/NAME` of the
            Hugging Face hub.
        data_root: Folder of a named data set.
        data_args: More arguments of what reads the data, for instance `{download: true}`, or
            `{target_key: label}` for shards whose labels are in `.json`.
        train_split: Part to train on; for shards their names, `train-{0000..0010}.tar`.
        validation_split: Part to measure accuracy, or the loss of reconstruction, on; `None`:
            neither is measured.
        num_classes: Number of outputs of the head; `None`: as many as the data have.
        on_error: Effect of an image that cannot be read: end the run, or be replaced by the next
            one with a warning.
        scene_objects: Fewest and most objects in a scene.
        scene_object_size: Smallest and largest diameter of an object, shares of the image.
        validation_scenes: Number of held-out scenes for validation.
        image_size: Side of the square input, pixels; a whole number of patches.
        crop_area: Share of the image's area that a random crop has; `None`: no augmentation.
        crop_pct: Share of the side that validation crops; `None`: timm's 0.875, or 1 for scenes
            and where training does not crop either.
        interpolation: Interpolation of the resizing, as timm names them.
        flip: Probability of a mirror image.
        color_jitter: Strength of the colour jitter, 0 for none.
        auto_augment: timm's text, for instance `rand-m9-n2`.
        random_erasing: Probability that a rectangle is erased.
        batch_size: Images per update, over all processes and accumulation steps.
        accumulation: Forward passes per update.
        epochs: Length in passes over the data; give this or `steps`.
        steps: Length in updates.
        warmup_epochs: Epochs of the linear warm-up; give this or `warmup_steps`.
        warmup_steps: Updates of the linear warm-up.
        optimizer: Optimizer, by timm's name.
        learning_rate: Highest learning rate, after warm-up.
        min_learning_rate: Learning rate where the cosine ends.
        warmup_learning_rate: Learning rate where the warm-up begins.
        betas: Decay rates of the optimizer's moments; `None`: the optimizer's own.
        weight_decay: Weight decay of matrices; vectors, positions and the class token have none.
        layer_decay: Factor of the learning rate from a layer to the one below it.
        clip_norm: Largest norm of the gradient; `None`: as it comes.
        label_smoothing: Share of a label's weight that goes to all classes alike.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of cutmix, 0 for none.
        mix_probability: Probability that a batch is mixed at all.
        mix_switch_probability: Probability of cutmix, where both are on.
        drop_path: Rate of stochastic depth in the last block.
        patch_drop: Share of the patches that an update leaves out.
        stages: Stages of a curriculum, in order; evaluation has the recipe's own keys.
        precision: Number type of the forward pass; weights and updates are float32.
        gradient_checkpointing: Compute activations twice to keep fewer of them.
        ema_decay: Decay of the moving average of the weights, which is then what is evaluated and
            exported; `None`: no average.
        compile: Compile the training step with `torch.compile`; slow to start, faster afterwards.
        seed: Seed of the weights, the order, the augmentation and every other choice.
        workers: Number of processes that read images, per training process.
        log_every: Updates from one line of metrics.csv to the next.
        evaluate_every: Updates from one evaluation to the next; 0: only at the end.
        probe_every: Updates from one probe (what attention, cuts and codes say of images with
            masks, into probes.csv) to the next, the untrained model first; 0: none.
        probe_set: Images of the probes, in COCO's format: `demo` (the built-in scenes), another
            split where data sets lie, or `FOLDER/SPLIT` beside `FOLDER/annotations`.
        probe_pictures: Number of images of the probes.
        probe_size: Side of the square that probes resize them to, pixels; `None`: `image_size`.
        save_every: Updates from one checkpoint to the next.
        keep: Number of checkpoints that are kept.
        sharding: Split of weights and optimizer state over several processes: each holds all of
            them (DDP), or a part (FSDP), for models too large for one GPU.
    """

    model: str
    model_args: dict[str, Any] = field(default_factory=dict)
    initial_weights: str | None = None
    task: str = "classification"
    mask_ratio: Hidden = field(default=0.75, metadata=_RECONSTRUCTION)
    normalised_target: bool = field(default=True, metadata=_RECONSTRUCTION)

    data: str = "scenes"
    data_root: str | None = None
    data_args: dict[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    validation_split: str | None = "validation"
    num_classes: Classes | None = field(default=None, metadata=_CLASSIFICATION)
    on_error: Literal["raise", "skip"] = "raise"
    scene_objects: tuple[Objects, Objects] = (1, 3)
    scene_object_size: tuple[Diameter, Diameter] = (0.3, 0.75)
    validation_scenes: Positive = 512

    image_size: Pixels = 224
    crop_area: tuple[Share, Share] | None = (0.08, 1.0)
    crop_pct: Share | None = None
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    flip: Fraction = 0.5
    color_jitter: Strength = 0.0
    auto_augment: str | None = None
    random_erasing: Fraction = 0.0

    batch_size: Positive = 256
    accumulation: Positive = 1
    epochs: Epochs | None = None
    steps: Positive | None = None
    warmup_epochs: WarmUp | None = None
    warmup_steps: Natural | None = None
    optimizer: Literal["adamw", "lion"] = "adamw"
    learning_rate: Rate = 1e-3
    min_learning_rate: Strength = 0.0
    warmup_learning_rate: Strength = 0.0
    betas: tuple[BelowOne, BelowOne] | None = None
    weight_decay: Strength = 0.05
    layer_decay: Fraction | None = field(default=None, metadata=_CLASSIFICATION)
    clip_norm: Norm | None = None

    label_smoothing: BelowOne = field(default=0.0, metadata=_CLASSIFICATION)
    mixup: Strength = field(default=0.0, metadata=_CLASSIFICATION)
    cutmix: Strength = field(default=0.0, metadata=_CLASSIFICATION)
    mix_probability: Fraction = 1.0
    mix_switch_probability: Fraction = 0.5
    drop_path: BelowOne = 0.0
    patch_drop: BelowOne = field(default=0.0, metadata=_CLASSIFICATION)
    stages: tuple[Stage, ...] = ()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    ema_decay: Fraction | None = None
    compile: bool = False

    seed: Seed = 0
    workers: ReadProcesses = 1
    log_every: Positive = 20
    evaluate_every: Natural = 0
    probe_every: Natural = 0
    probe_set: str = "demo"
    probe_pictures: Positive = 32
    probe_size: Pixels | None = None
    save_every: Positive = 1000
    keep: Positive = 2
    sharding: Literal["none", "fsdp"] = "none"

    def __post_init__(self) -> None:
        check_ranges(self)
        if (self.epochs is None) == (self.steps is None):
            raise InputError("the length of a run: give either epochs or steps")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise InputError("the warm-up: give either warmup_epochs or warmup_steps")
        if self.data == "scenes" and (self.epochs is not None or self.warmup_epochs is not None):
            raise InputError("scenes are endless: give steps and warmup_steps, not epochs")
        if self.batch_size % self.accumulation:
            raise InputError(
                f"batch_size: expected a multiple of accumulation, {self.accumulation}, "
                f"found {self.batch_size}"
            )
        if self.auto_augment is not None and not _AUGMENTATION.fullmatch(self.auto_augment):
            raise InputError(
                "auto_augment: expected a text of timm's such as rand-m9-n2, augmix-m5-w3 or "
                f"original, found {shorten(self.auto_augment)}"
            )
        for name, key in _OF_THE_RECIPE.items():
            if name in self.model_args:
                raise InputError(f"model_args: expected sizes, found {name}: give the key {key}")
        for name in ("scene_objects", "scene_object_size", "crop_area"):
            least, most = getattr(self, name) or (0, 0)
            if least > most:
                raise InputError(
                    f"{name}: expected the smaller number first, found {least}, {most}"
                )
        for option in dataclasses.fields(self):
            task, value = option.metadata.get("task", self.task), getattr(self, option.name)
            if task != self.task and value != option.default:
                raise InputError(
                    f"{option.name}: is for the task {task}; expected it left out of one of "
                    f"{self.task}, found {shorten(value)}"
                )
        self.staged  # noqa: B018  (refuses a wrong stage)

    def check_scenes(self) -> None:
        """Refuse sizes of scenes that cannot be drawn, of the run and of each stage.

        Raises:
            InputError: The data are scenes, and an image or an object of them is too small.
        """
        for number, part in enumerate((self, *self.staged) if self.data == "scenes" else ()):
            where = f"stage {number}: " if number else ""
            if part.image_size < 16:
                raise InputError(
                    f"{where}image_size: expected at least 16 of scenes, found {part.image_size}"
                )
            smallest, largest = part.scene_object_size
            if not 8 / part.image_size <= smallest <= largest <= 1:
                raise InputError(
                    f"{where}scene_object_size: expected shares of image_size, at least 8 pixels "
                    f"of its {part.image_size} and at most 1, found {smallest}, {largest}"
                )

    @cached_property
    def staged(self) -> tuple[Recipe, ...]:
        """The recipe of each stage."""
        recipes: list[Recipe] = []
        for number, stage in enumerate(self.stages, start=1):
            own = {name: value for name, value in vars(stage).items() if value is not None}
            del own["share"]
            try:
                check_ranges(stage)
                recipes.append(dataclasses.replace(self, stages=(), **own))
            except InputError as error:
                raise InputError(f"stage {number}: {error}") from error
        return tuple(recipes)

    def at(self, step: int, updates: int) -> Recipe:
        """Give the recipe of an update: this one, with the keys of the stage that it is in.

        Args:
            step: Number of finished updates before it.
            updates: Number of updates of the whole run.
        """
        if not self.stages:
            return self
        ends = list(itertools.accumulate(stage.share for stage in self.stages))
        position = step / updates * ends[-1]
        number = bisect.bisect_right(ends[:-1], position)
        return self.staged[number]

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Sides of the square input, pixels: the recipe's own, then those of the stages."""
        return tuple(part.image_size for part in (self, *self.staged))

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0
