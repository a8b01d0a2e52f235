"""How well TokenCut's mask covers the salient object: mean IoU on a folder of images and masks.

    python benchmarks/tokencut.py IMAGES MASKS --model demo [--random] [--size 480] [--tau 0.2]

A mask has the name of its image with the suffix .png (the layout of ECSSD); it is foreground above
127. The IoU is taken at the size of the original image, and averaged over images.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from crate_interp import MaskCut, load_backbone, tokencut
from crate_interp.data import list_images, read_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--random", action="store_true", help="an untrained model, seed 0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--tau", type=float, default=0.2)
    options = parser.parse_args()
    torch.manual_seed(0)
    # The predictor only brings images to features here; the cut is TokenCut's.
    model = load_backbone(options.model, pretrained=not options.random)
    predictor = MaskCut(model, size=options.size)
    overlaps = []
    for path in tqdm(list_images([options.images]), unit="image"):
        rgb = read_image(path)
        truth = read_image(options.masks / f"{path.stem}.png")[..., 0] > 127
        geometry = predictor.geometry(rgb)
        cut = tokencut(predictor.features([rgb])[0], geometry.grid_hw, options.tau)
        mask = geometry.input_to_original(geometry.grid_to_input(cut.mask[None].cpu().numpy()))[0]
        union = np.count_nonzero(mask | truth)
        overlaps.append(np.count_nonzero(mask & truth) / union if union else 1.0)
    weights = "untrained" if options.random else "trained"
    print(
        f"{options.model} ({weights}, {predictor.size} px, tau {options.tau}): mean IoU "
        f"{np.mean(overlaps):.3f} over {len(overlaps)} images"
    )


if __name__ == "__main__":
    main()
