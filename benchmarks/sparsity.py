"""How sparse the codes of a CRATE are, and what other steps cost it without training anew.

    python benchmarks/sparsity.py photo --step-sizes 0.1 0.2 --thresholds 0.1 0.6 \
        --images ecssd/images --masks ecssd/ground_truth_mask --classes pictures/val

A row of the table is a model with one step size eta and one threshold lambda of its sparse step:
the share of codes that are not zero, by block; of the last block's atoms the median share of
patches that one fires on, the share of atoms that never fire, and of those that fire on more than
half of the patches; the accuracy on the classified images; and the IoU of TokenCut's mask (last
block, tau 0.2) with the salient object.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from crate_interp import Observer, load_backbone
from crate_interp.data import ClassFolders, LabelledSet, open_class_folders, open_saliency
from crate_interp.evaluation.masks import mask_iou
from crate_interp.hooks import Site, default_feature
from crate_interp.models.backbones import Backbone
from crate_interp.segmentation import tokencut


@torch.inference_mode()
def codes_and_cuts(model: Backbone, size: int, data: LabelledSet) -> tuple[np.ndarray, float]:
    """Measure the share of patches that each atom fires on, by block, and the mean IoU of cuts."""
    observer, blocks = Observer(model, size), range(len(model.blocks))
    feature = default_feature(model)
    frequencies, overlaps = [], []
    for record in data.images.records:
        rgb = record.read()
        activations = observer.activations([rgb], [feature, Site.CODES], blocks)
        codes = torch.stack([activations[Site.CODES, block][0] for block in blocks])
        fires = codes[:, activations.num_prefix_tokens :] != 0
        frequencies.append(fires.float().mean(dim=1).numpy())
        features = activations.patch_features(feature, -1)[0].float()
        mask = tokencut(features, activations.grid_hw).mask[None].cpu().numpy()
        truth = data.labels_of(record, rgb.shape[:2])[None] == 1
        geometry = observer.geometry(rgb.shape[:2])
        overlaps.append(mask_iou(geometry.grid_to_original(mask), truth)[0, 0])
    return np.mean(frequencies, axis=0), float(np.mean(overlaps))


@torch.inference_mode()
def accuracy(model: Backbone, size: int, folders: ClassFolders, limit: int) -> float:
    """Measure the share of images, evenly taken from all, whose class has the highest score."""
    config = resolve_model_data_config(model) | {"input_size": (3, size, size), "crop_pct": 0.875}
    transform = create_transform(**config | {"interpolation": "bilinear"})
    pictures, count = len(folders.records), min(limit, len(folders.records))
    records = [folders.records[position * pictures // count] for position in range(count)]
    right = 0
    for start in range(0, len(records), 64):
        batch = records[start : start + 64]
        pixels = torch.stack([transform(Image.fromarray(record.read())) for record in batch])
        labels = torch.tensor([folders.labels[record.image_id] for record in batch])
        right += int((model(pixels).argmax(dim=1) == labels).sum())
    return right / len(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or weight files")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.1])
    parser.add_argument("--step-sizes", nargs="+", type=float, default=[0.1])
    parser.add_argument("--images", type=Path, required=True, help="images with a salient object")
    parser.add_argument("--masks", type=Path, required=True, help="their masks")
    parser.add_argument("--last", type=int, default=40, help="how many of them, from the end")
    parser.add_argument("--size", type=int, default=160, help="side of these images, pixels")
    parser.add_argument("--classes", type=Path, help="a folder of class folders")
    parser.add_argument("--class-size", type=int, default=48, help="side of those, pixels")
    parser.add_argument("--limit", type=int, default=3000, help="how many of those")
    parser.add_argument("--untrained", action="store_true", help="draw the weights anew")
    options = parser.parse_args()
    salient = open_saliency(options.images, options.masks)
    records = salient.images.records[-options.last :]
    salient = replace(salient, images=replace(salient.images, records=records))
    folders = None if options.classes is None else open_class_folders(options.classes)
    print(
        "| model | eta | lambda | codes not zero by block, % | median atom, % | silent atoms, % "
        "| atoms on most patches, % | accuracy, % | TokenCut IoU |\n" + "|---" * 9 + "|"
    )
    steps = itertools.product(options.models, options.step_sizes, options.thresholds)
    for name, step_size, threshold in steps:
        model = load_backbone(name, step_size=step_size, threshold=threshold)
        if options.untrained:
            torch.manual_seed(0)
            model.init_weights(needs_reset=True)
        frequency, overlap = codes_and_cuts(model, options.size, salient)
        by_block = " ".join(f"{100 * share:.0f}" for share in frequency.mean(axis=1))
        last, right = frequency[-1], "-"
        if folders is not None:
            right = f"{100 * accuracy(model, options.class_size, folders, options.limit):.1f}"
        print(
            f"| {Path(name).stem} | {step_size:g} | {threshold:g} | {by_block} "
            f"| {100 * np.median(last):.1f} | {100 * (last == 0).mean():.1f} "
            f"| {100 * (last > 0.5).mean():.1f} | {right} | {overlap:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
