"""Train `crate_alpha_demo`, the small CRATE-alpha that the package ships, on the built-in scenes.

    python pipelines/train_demo.py checkpoints/crate_alpha_demo.safetensors

Every picture is drawn when it is needed and seen once; its label is the category of the largest
visible object: the model never sees a mask. A run that stopped goes on from its last minute with
the same command. Where others use the cores too, OMP_NUM_THREADS=1 is several times faster than
threads that wait for each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import training_batch
from crate_interp.models.checkpoint_files import write_safetensors
from crate_interp.models.loading import ModelRecord

MODEL = "crate_alpha_demo"
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
TRAINING_SEED, HELD_OUT_SEED = 1, 2  # 0 draws the demo set
HELD_OUT_BATCHES = 16


class Stage(NamedTuple):
    """A part of the curriculum."""

    steps: int
    image_size: int
    object_count: tuple[int, int]
    object_size: tuple[float, float]
    patch_drop_rate: float


# Textures are learnt from one large object in a small picture at a fraction of the cost; with
# several objects from the start, nothing is learnt for long. The size of the last stage is the one
# at which MaskCut is run. Dropping most patches makes that size as cheap as the first, and each
# patch tell of its object by itself.
STAGES = (
    Stage(1000, 32, object_count=(1, 1), object_size=(0.55, 1.0), patch_drop_rate=0.0),
    Stage(400, 64, object_count=(1, 3), object_size=(0.3, 0.75), patch_drop_rate=0.6),
    Stage(1600, 96, object_count=(1, 3), object_size=(0.28, 0.62), patch_drop_rate=0.82),
)
STEPS = sum(stage.steps for stage in STAGES)


def stage_of(step: int) -> Stage:
    """The stage that a step belongs to; held-out scenes are drawn as in the last one."""
    ends = itertools.accumulate(stage.steps for stage in STAGES)
    return next((s for s, end in zip(STAGES, ends, strict=True) if step < end), STAGES[-1])


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of scenes, the same for the same seed and numbers."""

    def __init__(self, seed: int, numbers: range) -> None:
        self.seed, self.numbers = seed, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number = self.numbers[index]
        _, size, object_count, object_size, _ = stage_of(number)
        rng = np.random.default_rng([self.seed, number])
        images, labels = training_batch(rng, BATCH_SIZE, size, object_count, object_size)
        return torch.from_numpy(images), torch.from_numpy(labels)


def draw(seed: int, numbers: range) -> DataLoader[tuple[Tensor, Tensor]]:
    """Draw batches in order, in a process of its own."""
    return DataLoader(Batches(seed, numbers), batch_size=None, num_workers=1)


def normalise(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float, with ImageNet's mean and standard deviation."""
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def learning_rate(step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return LEARNING_RATE * warmup * cosine


def accuracy(model: nn.Module) -> float:
    """Share of held-out scenes, drawn as in the last stage, that are labelled right."""
    model.eval()
    correct: list[float] = []
    held_out = range(STEPS, STEPS + HELD_OUT_BATCHES)
    with torch.no_grad():
        for images, labels in draw(HELD_OUT_SEED, held_out):
            correct.append((model(normalise(images)).argmax(1) == labels).float().mean().item())
    return sum(correct) / len(correct)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the resume file as a whole."""
    fresh = path.with_suffix(".partial")
    torch.save(state, fresh)
    fresh.replace(path)


def train(output: Path) -> None:
    """Train from the start or the last saved minute, and write the weights with their record."""
    torch.manual_seed(TRAINING_SEED)
    model: Any = timm.create_model(MODEL, dynamic_img_size=True, patch_drop_rate=0.5)
    for block in model.blocks:
        block.attn.fused_attn = False  # its backward pass in bfloat16 is slow on a CPU
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    state_file = output.with_suffix(".state")
    first_step, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, seconds = state["step"], state["seconds"]

    started = saved = time.monotonic() - seconds
    batches = draw(TRAINING_SEED, range(first_step, STEPS))
    for step, (images, labels) in enumerate(batches, start=first_step):
        torch.manual_seed(step)  # the patches dropped are the same after a stop
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        model.patch_drop.prob = stage_of(step).patch_drop_rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(normalise(images))
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        if step % 20 == 0:
            right = (logits.argmax(1) == labels).float().mean()
            print(
                f"step {step}: loss {loss:.3f}, accuracy {right:.2f}, {now - started:.0f} s",
                flush=True,
            )
        if now - saved > 60 or step == STEPS - 1:
            saved, seconds = now, now - started
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(state_file, {**state, "step": step + 1, "seconds": seconds})

    training = {
        "data": "trained only on the built-in scenes, drawn by crate_interp; labels, no masks",
        "script": "pipelines/train_demo.py",
        "steps": STEPS,
        "pictures": STEPS * BATCH_SIZE,
        "seconds": round(seconds),
        "held_out_accuracy": round(accuracy(model), 4),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
    record = ModelRecord(
        model=MODEL,
        model_args={},
        num_classes=len(CATEGORIES),
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
    classes = [category.name for category in CATEGORIES]
    own = {"classes": json.dumps(classes), "training": json.dumps(training)}
    write_safetensors(output, model.state_dict(), {**record.to_metadata(), **own})
    state_file.unlink()
    print(json.dumps(training, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    train(parser.parse_args().output)
