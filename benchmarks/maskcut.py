"""MaskCut end to end, the reference way and ours, side by side in one run.

The reference way is what published code does: attention with its full maps in memory, the dense
generalised eigenproblem of scipy for each mask, pydensecrf mask by mask, numpy for the rest. Ours
is the library. Both cut the same photograph with the same randomly initialised model.
Keys of such a model are nearly parallel, all their cosines above any usual tau: both ways subtract
the mean key first, so that there is something to cut.

    python benchmarks/maskcut.py --size 480 --model vit_small_patch8_224 --rounds 3 --crf
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.linalg
import scipy.ndimage
import timm
import torch
from sklearn.datasets import load_sample_image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from crate_interp.data import preprocess, resize_image
from crate_interp.engine import StageClock
from crate_interp.hooks import record
from crate_interp.models import inference_precision
from crate_interp.runs.inference import precision_of
from crate_interp.segmentation import MaskCut, maskcut, refine_masks

STAGES = ("forward", "affinity", "eigen step", "crf", "rest")


class Stopwatch(StageClock):
    """Seconds by stage; what no stage claims is `rest`."""

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return function(*args, **kwargs)

        return timed

    def close(self) -> None:
        self.seconds = {name: self.seconds.get(name, 0.0) for name in (*STAGES, "total")}
        claimed = sum(self.seconds[name] for name in STAGES)
        self.seconds["rest"] = self.seconds["total"] - claimed


# --- The reference way -----------------------------------------------------------------------


def reference_features(model: VisionTransformer, pixels: Tensor) -> np.ndarray:
    """Keys, or the one projection of CRATE, (D, n), of the last block's `qkv` projection."""
    captured: list[Tensor] = []
    qkv = model.get_submodule(f"blocks.{len(model.blocks) - 1}.attn.qkv")
    handle = qkv.register_forward_hook(lambda _, __, output: captured.append(output))
    try:
        with torch.inference_mode():
            model(pixels)
    finally:
        handle.remove()
    features = captured[0][0]
    if features.shape[-1] == 3 * model.embed_dim:
        _, features, _ = features.chunk(3, dim=-1)
    return features[model.num_prefix_tokens :].T.numpy()


def reference_maskcut(
    features: np.ndarray, grid: tuple[int, int], tau: float, rounds: int, watch: Stopwatch
) -> np.ndarray:
    """Steps 2 to 7 of the protocol with dense matrices; the sign is what LAPACK returns."""
    features = features.astype(np.float64)
    covered = np.zeros(grid, dtype=bool)
    current = covered
    masks = []
    for number in range(rounds):
        with watch("affinity"):
            features[:, covered.ravel()] = 0
            unit = features / np.maximum(np.linalg.norm(features, axis=0), 1e-12)
            weights = np.where(unit.T @ unit > tau, 1.0, 1e-5)
            degree = np.diag(weights.sum(axis=1))
        with watch("eigen step"):
            _, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 2])
        x = vectors[:, 0].reshape(grid)
        partition = x > x.mean()
        corners = sum(int(partition[row, column]) for row in (0, -1) for column in (0, -1))
        if corners >= 3 or not partition.flat[np.abs(x).argmax()]:
            partition, x = ~partition, -x
        labels, _ = scipy.ndimage.label(partition)
        found = labels == labels.flat[x.argmax()]
        if number > 0:
            iou = (found & current).sum() / (found | current).sum()
            if iou > 0.5 or found.mean() <= 0.01:
                found = np.zeros(grid, dtype=bool)
        masks.append(found & ~covered)
        covered = covered | found
        current = found
    return np.array(masks)


def reference_crf(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Steps 8 of the protocol, one mask after the other; dropped masks are left out."""
    from pydensecrf.densecrf import DenseCRF2D

    side = image.shape[0]
    kept = []
    for mask in masks:
        values = np.stack([~mask, mask]).astype(np.float32)
        energies = np.log(np.exp(values).sum(axis=0)) - values
        crf = DenseCRF2D(side, side, 2)
        crf.setUnaryEnergy(np.ascontiguousarray(energies.reshape(2, -1)))
        crf.addPairwiseGaussian(sxy=3, compat=7)
        crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
        likely = np.argmax(crf.inference(10), axis=0).reshape(side, side) == 1
        refined = scipy.ndimage.binary_fill_holes(likely)
        if mask.any() and (mask & refined).sum() >= 0.5 * (mask | refined).sum():
            kept.append(refined)
    return np.array(kept)


def run_reference(
    model: VisionTransformer, pixels: Tensor, tau: float, rounds: int, crf: bool
) -> tuple[np.ndarray, Stopwatch]:
    for number in range(len(model.blocks)):
        model.get_submodule(f"blocks.{number}.attn").fused_attn = False  # type: ignore[assignment]
    watch = Stopwatch()
    with watch("total"):
        with watch("forward"):
            features = reference_features(model, pixels)
        centred = features - features.mean(axis=1, keepdims=True)
        masks = reference_maskcut(centred, model.patch_embed.grid_size, tau, rounds, watch)
        if crf:
            with watch("crf"):
                patch = model.patch_embed.patch_size[0]
                masks = reference_crf(to_image(pixels), masks.repeat(patch, 1).repeat(patch, 2))
    watch.close()
    return masks, watch


# --- Ours ------------------------------------------------------------------------------------


def run_library(
    model: VisionTransformer, pixels: Tensor, tau: float, rounds: int, crf: bool
) -> tuple[np.ndarray, Stopwatch]:
    watch = Stopwatch()
    precision = inference_precision(precision_of("auto", pixels.device), model)
    module: Any = sys.modules[maskcut.__module__]
    originals = {name: getattr(module, name) for name in ("affinity", "second_eigenpairs")}
    module.affinity = watch.wrap("affinity", module.affinity)
    module.second_eigenpairs = watch.wrap("eigen step", module.second_eigenpairs)
    try:
        with watch("total"):
            feature = MaskCut(model).feature
            recorder = record(model, [feature], [-1], stop_early=True)
            with watch("forward"), torch.inference_mode(), precision, recorder:
                model(pixels)
            features = recorder.activations.patch_features(feature, -1)[0]
            centred = features - features.mean(dim=1, keepdim=True)
            masks = maskcut(centred, model.patch_embed.grid_size, tau, rounds).masks.numpy()
            if crf:
                with watch("crf"):
                    patch = model.patch_embed.patch_size[0]
                    large = masks.repeat(patch, 1).repeat(patch, 2)
                    masks = refine_masks(to_image(pixels), large)
    finally:
        for name, function in originals.items():
            setattr(module, name, function)
    watch.close()
    return masks, watch


# --- Photograph, model, table -------------------------------------------------------------------


def photograph(size: int) -> Tensor:
    """A photograph that scikit-learn brings, (1, 3, size, size), normalised."""
    rgb = resize_image(load_sample_image("china.jpg"), (size, size))
    return preprocess(rgb, (size, size), (0.5,) * 3, (0.25,) * 3)[None]


def to_image(pixels: Tensor) -> np.ndarray:
    """Undo the normalisation: RGB uint8."""
    image = pixels[0].permute(1, 2, 0) * 0.25 + 0.5
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).numpy())


def create_model(name: str, size: int) -> VisionTransformer:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, img_size=size, num_classes=0)
    if not isinstance(model, VisionTransformer):
        raise SystemExit(f"{name} is no timm VisionTransformer")
    return model.eval()


def peak_memory_mb() -> float:
    """Most memory that this process has held so far; the system's count of a child starts high."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def median_seconds(watches: list[Stopwatch]) -> dict[str, float]:
    names = (*STAGES, "total")
    return {name: statistics.median(watch.seconds[name] for watch in watches) for name in names}


def agreement(ours: np.ndarray, reference: np.ndarray) -> str:
    if ours.shape != reference.shape:
        return f"NO, {len(ours)} masks and {len(reference)}"
    if np.array_equal(ours, reference):
        return "yes"
    both = (ours & reference).sum(axis=(1, 2))
    ious = both / np.maximum((ours | reference).sum(axis=(1, 2)), 1)
    return f"all but {int((ours != reference).sum())} of {ours.size}, IoU at least {ious.min():.5f}"


def print_table(reference: dict[str, float], ours: dict[str, float], rounds: int) -> None:
    print("| stage | reference, s | ours, s | times faster |")
    print("|---|---|---|---|")
    for name in (*STAGES, "total"):
        label = {"eigen step": f"eigen step, {rounds} rounds", "total": "end to end"}
        if not reference[name]:
            continue  # not asked for
        ratio = reference[name] / ours[name]
        row = f"{label.get(name, name)} | {reference[name]:.3f} | {ours[name]:.3f} | {ratio:.1f}"
        print(f"| {row} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_small_patch8_224", help="a timm ViT, or CRATE")
    parser.add_argument("--size", type=int, default=480, help="side of the picture, pixels")
    parser.add_argument("--rounds", type=int, default=3, help="masks")
    parser.add_argument("--tau", type=float, default=0.15)
    parser.add_argument("--crf", action="store_true", help="refine; needs the extra `crf`")
    parser.add_argument("--repeats", type=int, default=1, help="runs each; medians are printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print the numbers for a program")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = create_model(arguments.model, arguments.size)
    pixels = photograph(arguments.size)
    settings = (model, pixels, arguments.tau, arguments.rounds, arguments.crf)
    # Ours first: the peak of memory that a process reports never falls.
    ours, our_watches = zip(
        *(run_library(*settings) for _ in range(arguments.repeats)), strict=True
    )
    our_peak = peak_memory_mb()
    reference, reference_watches = zip(
        *(run_reference(*settings) for _ in range(arguments.repeats)), strict=True
    )

    reference_seconds = median_seconds(list(reference_watches))
    our_seconds = median_seconds(list(our_watches))
    masks_equal = agreement(ours[0], reference[0])
    if arguments.json:
        numbers = {
            "reference": reference_seconds,
            "ours": our_seconds,
            "masks_equal": masks_equal,
            "ours_mb": our_peak,
            "reference_mb": peak_memory_mb(),
        }
        print(json.dumps(numbers))
        return
    print(
        f"{arguments.model}, {arguments.size} px, tau {arguments.tau}, {arguments.rounds} rounds; "
        f"{platform.processor() or platform.machine()}, "
        f"{arguments.threads} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}, scipy {scipy.__version__}\n"
    )
    print_table(reference_seconds, our_seconds, arguments.rounds)
    sizes = ", ".join(str(int(mask.sum())) for mask in ours[0])
    print(f"\nmasks equal: {masks_equal}")
    print(f"{'pixels' if arguments.crf else 'patches'} a mask: {sizes} of {ours[0][0].size}")
    print(f"peak memory: ours {our_peak:.0f} MB, with the reference {peak_memory_mb():.0f} MB")


if __name__ == "__main__":
    main()
