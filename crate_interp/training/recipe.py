"""A recipe: everything that decides the weights a training run ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from crate_interp.options.ranges import (
    BelowOne,
    Fraction,
    Index,
    Natural,
    ReadProcesses,
    Seed,
    Share,
)
from crate_interp.training.recipe_checks import check_recipe
from crate_interp.training.recipe_ranges import (
    Classes,
    Diameter,
    Epochs,
    Hidden,
    Norm,
    Objects,
    Pixels,
    Positive,
    Rate,
    Strength,
    WarmUp,
)
from crate_interp.training.sources import Source
from crate_interp.training.stages import Stage, recipes_of_stages, stage_index

__all__ = ["Recipe"]

# Metadata of the keys that one objective alone has.
_CLASSIFICATION = {"task": "classification"}
_RECONSTRUCTION = {"task": "reconstruction"}
_TEXTS = {"task": "language or contrastive"}
_CONTRASTIVE = {"task": "contrastive"}
_SEGMENTATION = {"task": "segmentation"}


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
            predicts its hidden patches, as a CRATE-MAE does, and does not look at classes;
            `language` predicts the next token of texts; `contrastive` tells which caption goes with
            which image, as CLIP does; `segmentation` classes pixels by the tokens of their patches.
            Keys that one objective alone has are refused in recipes of others.
        mask_ratio: Share of the patches that reconstruction hides.
        normalised_target: Whether reconstruction predicts each patch less its mean and over its
            standard deviation.
        tokenizer: Vocabulary of `language` and of captions: a `tokenizer.json` of the package
            tokenizers, by its path, or a vocabulary of tiktoken by its name, `gpt2` for instance.
            `None`: the characters of the texts, or the words of the captions.
        text_args: Sizes of the text tower of `contrastive`: `context` (tokens of a text), `width`,
            `depth`, `num_heads`, and `embedding`, the number of dimensions that images and texts
            share.
        frozen: Whether `segmentation` trains the head alone, on a backbone that stays as it is.
        data: `scenes`; a folder of class folders (with `train` and `validation` below it, or not);
            a folder of `train.tar` and `validation.tar` with class folders, or such a tar file;
            `wds/FOLDER` of WebDataset's shards; `torch/NAME` of torchvision; `hfds/NAME` of the
            Hugging Face hub; or a list of sources, each with the keys of `Source`: `name` and
            `data`, and, if need be, `classes`, `data_args` and splits of its own. Of `language`: a
            text file (`.jsonl`: a text per line, under the key `text`; `.parquet` and `.arrow`: a
            text per row), a folder of them whose splits are folders or parts of names, as in
            `wiki.train.tokens`, or `hf:USER/NAME` of the hub. Of `contrastive`: `scenes`,
            `wds/FOLDER` of shards with a `.txt` for each image, or a `.csv` or `.tsv` file with the
            columns `filepath` and `title`, or `path` and `caption`. Of `segmentation`: a folder as
            VOC or ADE20K has it, or a built-in set.
        data_root: Folder of a named data set, and of `data` that is a relative path.
        data_args: More arguments of what reads the data, for instance `{download: true}`, or
            `{target_key: label}` for shards whose labels are in `.json`.
        train_split: Part to train on, `train+val` for two; for shards their names,
            `train-{0000..0010}.tar`.
        validation_split: Part to measure accuracy, or the loss of reconstruction, on; `None`:
            neither is measured. It may lack classes that are trained on.
        held_out: In place of a validation split, share of the pictures to train on that are left
            for validation. A hash of a picture's name `SOURCE/PATH` decides (see `Source.name`;
            the name of `data` that is no list is its last part), so they are the same ones
            wherever the data lie. Of `language`: the last share of each file. `None`: none.
        exclude: Text file of pictures that are left out of training and validation, a line
            `SOURCE/PATH` each; looked for beside the recipe, too.
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
        batch_size: Images, or windows of a text, per update, over all processes and accumulation
            steps.
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
        weight_decay: Weight decay of matrices; vectors, positions of patches and the class token
            have none.
        layer_decay: Factor of the learning rate from a layer to the one below it.
        clip_norm: Largest norm of the gradient; `None`: as it comes.
        label_smoothing: Share of a label's weight that goes to all classes alike.
        code_penalty: Weight in the loss of the mean absolute value of the sparse codes of all
            blocks; above 0 only for models that have codes.
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
        probe_set: Images of the probes, in COCO's format: a built-in set (`demo` for the scenes),
            another split where data sets lie, or `FOLDER/SPLIT` beside `FOLDER/annotations`; or a
            folder with masks of the salient object, of `images/` and `masks/` (ECSSD's
            `ground_truth_mask/`), where MaskCut's precision is not measured.
        probe_pictures: Number of images of the probes, from the first on; or two numbers: `[111,
            150]` are the 111th to the 150th, so that the first 110 are left to report on.
        probe_size: Side of the square that probes resize them to, pixels; `None`: `image_size`.
            Several in a list: the columns of probes.csv then end in their size, as `_224px`.
        probe_block: Block that attention and cuts read, negative from the last; `None`: the last.
            Several in a list: the columns of probes.csv then end in their block, as `_block-2`.
        keep_best: Column of probes.csv, such as `tokencut_iou`, whose largest number decides which
            weights best.safetensors holds; `None`: validation does.
        milestone_every: Updates from one milestone (the evaluated weights, as a model file in
            `milestones`) to the next, the untrained model first; 0: none.
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
    tokenizer: str | None = field(default=None, metadata=_TEXTS)
    text_args: dict[str, Index] | None = field(default=None, metadata=_CONTRASTIVE)
    frozen: bool = field(default=False, metadata=_SEGMENTATION)

    data: str | tuple[Source, ...] = "scenes"
    data_root: str | None = None
    data_args: dict[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    validation_split: str | None = "validation"
    held_out: BelowOne | None = None
    exclude: str | None = None
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
    code_penalty: Strength = field(default=0.0, metadata=_CLASSIFICATION)
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
    probe_pictures: Positive | tuple[Positive, Positive] = 32
    probe_size: Pixels | tuple[Pixels, ...] | None = None
    probe_block: Index | tuple[Index, ...] | None = None
    keep_best: str | None = None
    milestone_every: Natural = 0
    save_every: Positive = 1000
    keep: Positive = 2
    sharding: Literal["none", "fsdp"] = "none"

    def __post_init__(self) -> None:
        check_recipe(self)

    @cached_property
    def staged(self) -> tuple[Recipe, ...]:
        """The recipe of each stage."""
        return recipes_of_stages(self)

    def at(self, step: int, updates: int) -> Recipe:
        """Give the recipe of an update: this one, with the keys of the stage that it is in.

        Args:
            step: Number of finished updates before it.
            updates: Number of updates of the whole run.
        """
        if not self.stages:
            return self
        return self.staged[stage_index(self.stages, step / updates)]

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Sides of the square input, pixels: the recipe's own, then those of the stages."""
        return tuple(part.image_size for part in (self, *self.staged))

    @property
    def probe_sizes(self) -> tuple[int, ...]:
        """Sides of the square that probes resize images to, pixels."""
        sizes = self.probe_size or self.image_size
        return (sizes,) if isinstance(sizes, int) else sizes

    @property
    def probe_blocks(self) -> tuple[int, ...]:
        """Numbers of the blocks that attention and cuts of the probes read."""
        blocks = -1 if self.probe_block is None else self.probe_block
        return (blocks,) if isinstance(blocks, int) else blocks

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0
