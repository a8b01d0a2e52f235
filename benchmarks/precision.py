"""How far MaskCut's masks depend on the number type of the forward pass.

    python benchmarks/precision.py photos/ --models demo demo_crate demo_vit --sizes 96 192

Each mask found with a number type is compared with the most similar one that float32 finds in the
same image, and the other way round; the mean is over all. An image where one of the two has
no mask counts as 0, unless both have none.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from crate_interp import MaskCut, load_backbone
from crate_interp.data import list_images, read_image
from crate_interp.evaluation.masks import mask_iou


def agreement(masks: np.ndarray, exact: np.ndarray) -> float:
    """Mean IoU of each mask with the most similar one of the other side, both ways."""
    if not len(masks) or not len(exact):
        return float(len(masks) == len(exact))
    ious = mask_iou(masks, exact)
    return float(np.concatenate([ious.max(axis=0), ious.max(axis=1)]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--models", nargs="+", default=["demo", "demo_crate", "demo_vit"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[96, 192])
    types = ["bfloat16_attention", "bfloat16", "float16"]
    parser.add_argument("--precisions", nargs="+", default=types[:2], choices=types)
    arguments = parser.parse_args()
    images = [read_image(path) for path in list_images(arguments.images)]
    print(f"{len(images)} images, {os.cpu_count()} cores\n")
    print(
        "| model | pixels | number type | error of the features | mask IoU |\n" + "|---" * 5 + "|"
    )
    for name in arguments.models:
        model = load_backbone(name)
        for size in arguments.sizes:
            exact = MaskCut(model, size=size)
            features = [exact.features([image])[0] for image in images]
            masks = [
                exact.instances(image, exact.cut(feature[None])[0]).masks
                for image, feature in zip(images, features, strict=True)
            ]
            for precision in arguments.precisions:
                rounded = MaskCut(model, size=size, precision=precision)
                errors, ious = [], []
                for image, feature, expected in zip(images, features, masks, strict=True):
                    found = rounded.features([image])[0]
                    spread = (feature - feature.mean(dim=1, keepdim=True)).norm()
                    errors.append(float((found - feature).norm() / spread))
                    ious.append(
                        agreement(
                            rounded.instances(image, rounded.cut(found[None])[0]).masks, expected
                        )
                    )
                print(
                    f"| {name} | {size} | {precision} | {np.mean(errors):.1e} "
                    f"| {np.mean(ious):.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
