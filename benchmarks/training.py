"""Throughput of `crate_interp.training.train` beside a bare loop of timm's parts, in one run.

Both train the same model on the same folder of pictures, drawn here, with the same augmentation,
optimizer, number type and worker processes. The bare loop has nothing else: no metrics, no check of
the loss, no checkpoint, no seeds by picture, no gradient norm. The two take turns, in short
segments, so that what else the machine does slows both down alike.

    python benchmarks/training.py                     # the shipped model on a CPU
    python benchmarks/training.py --model crate_alpha_small_patch16_224 --image-size 224 \
        --batch-size 256 --workers 12 --updates 60    # a GPU
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch import nn

from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import training_batch
from crate_interp.training import Metrics, Recipe, train

NUMBER_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Segment:
    """Seconds of some updates after the warm-up: on the wall, and of this process's processor."""

    wall: float
    processor: float


class Clock:
    """Begins at the end of the warm-up, when workers have filled their queues."""

    def __init__(self, warmup: int, updates: int) -> None:
        self._warmup, self._last = warmup, warmup + updates
        self._began = (0.0, 0.0)
        self.segment: Segment | None = None

    def tick(self, finished: int) -> None:
        if finished == self._warmup:
            self._began = (time.perf_counter(), time.process_time())
        elif finished == self._last:
            wall, processor = self._began
            self.segment = Segment(time.perf_counter() - wall, time.process_time() - processor)


def draw_pictures(folder: Path, count: int, size: int) -> None:
    """Write scenes as JPEG files into a folder a category, as data sets of pictures are."""
    rng = np.random.default_rng(0)
    for category in CATEGORIES:
        (folder / "train" / category.name).mkdir(parents=True)
    for number in range(count):
        images, labels = training_batch(rng, 1, size, (1, 3), (0.3, 0.75))
        name = folder / "train" / CATEGORIES[labels[0]].name / f"{number}.jpg"
        Image.fromarray(images[0]).save(name, quality=90)


def time_ours(recipe: Recipe, clock: Clock) -> None:
    def report(metrics: Metrics, _: int) -> None:
        clock.tick(metrics.step)

    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder), report)


def batches(recipe: Recipe, model: Any, device: torch.device) -> Iterator[Any]:
    """timm's loader, epoch after epoch; on a GPU with its prefetcher."""
    on_gpu = device.type == "cuda"
    loader = create_loader(
        create_dataset("", root=recipe.data, split="train", is_training=True),
        input_size=(3, recipe.image_size, recipe.image_size),
        batch_size=recipe.batch_size,
        is_training=True,
        use_prefetcher=on_gpu,
        scale=recipe.crop_area,
        hflip=recipe.flip,
        color_jitter=None,
        interpolation=recipe.interpolation,
        mean=model.pretrained_cfg["mean"],
        std=model.pretrained_cfg["std"],
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
        pin_memory=on_gpu,
        device=device,
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def time_bare(recipe: Recipe, clock: Clock) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    model: Any = timm.create_model(
        recipe.model, num_classes=len(CATEGORIES), img_size=recipe.image_size
    )
    if device.type == "cpu" and recipe.precision == "bfloat16":
        for block in model.blocks:
            block.attn.fused_attn = False  # as training does: the same model
    model.to(device).train()
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    loss_of = nn.CrossEntropyLoss()
    number_type = NUMBER_TYPES[recipe.precision]
    autocast = torch.autocast(device.type, number_type, enabled=recipe.precision != "float32")
    source = batches(recipe, model, device)
    for finished in range(1, (recipe.steps or 0) + 1):
        images, labels = next(source)
        with autocast:
            logits = model(images)
        loss_of(logits.float(), labels).backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if finished in (recipe.warmup_steps, recipe.steps) and device.type == "cuda":
            torch.cuda.synchronize()
        clock.tick(finished)


def compare(recipe: Recipe, segments: int) -> dict[str, list[Segment]]:
    """Time both ways in turn; the one that comes first changes from turn to turn."""
    warmup = recipe.warmup_steps or 0
    ways: list[tuple[str, Callable[[Recipe, Clock], None]]] = [
        ("bare timm", time_bare),
        ("ours", time_ours),
    ]
    found: dict[str, list[Segment]] = {name: [] for name, _ in ways}
    for _ in range(segments):
        for name, run in ways:
            clock = Clock(warmup, (recipe.steps or 0) - warmup)
            run(recipe, clock)
            if clock.segment is not None:
                found[name].append(clock.segment)
        ways.reverse()
    return found


def print_table(found: dict[str, list[Segment]], pictures: int) -> None:
    print("| | pictures/s, median | fastest | slowest | pictures a processor second |")
    print("|---|---|---|---|---|")
    for name, segments in found.items():
        speeds = sorted(pictures / segment.wall for segment in segments)
        processor = statistics.median(pictures / segment.processor for segment in segments)
        numbers = (statistics.median(speeds), speeds[-1], speeds[0], processor)
        print(f"| {name} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |")
    print()
    for measure in ("wall", "processor"):
        ratios = sorted(
            getattr(bare, measure) / getattr(ours, measure)
            for bare, ours in zip(found["bare timm"], found["ours"], strict=True)
        )
        middle = statistics.median(ratios)
        print(
            f"speed of ours over bare, {measure} time: median {middle:.3f} of {len(ratios)} turns "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="crate_alpha_demo")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=sorted(NUMBER_TYPES), default="bfloat16")
    parser.add_argument("--clip-norm", type=float, help="largest norm of the gradient")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    parser.add_argument("--pictures", type=int, default=512, help="how many are drawn")
    parser.add_argument("--updates", type=int, default=8, help="of a segment")
    parser.add_argument("--warmup", type=int, default=3, help="updates before a segment")
    parser.add_argument("--segments", type=int, default=7, help="of each way")
    parser.add_argument("--threads", type=int, default=1, help="of the training process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder), arguments.pictures, arguments.image_size)
        recipe = Recipe(
            model=arguments.model,
            data=folder,
            validation_split=None,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            clip_norm=arguments.clip_norm,
            workers=arguments.workers,
            steps=arguments.warmup + arguments.updates,
            warmup_steps=arguments.warmup,
            save_every=10**9,
        )
        found = compare(recipe, arguments.segments)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(
        f"\n{arguments.model}, {arguments.image_size} px, batch {arguments.batch_size}, "
        f"{arguments.precision}, clip_norm {arguments.clip_norm}, {arguments.workers} workers; "
        f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}\n"
    )
    print_table(found, arguments.updates * arguments.batch_size)


if __name__ == "__main__":
    main()
