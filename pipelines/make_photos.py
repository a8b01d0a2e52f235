"""Make the built-in set `photos` of COCO 2017: its pictures, annotations and credits.

    python pipelines/make_photos.py COCO_FOLDER OUTPUT_FOLDER

COCO_FOLDER holds `val2017/`, `train2017/` and `annotations/instances_SPLIT.json` of both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crate_interp.data import decode_mask, encode_masks

LONGER_SIDE = 320  # pixels
CC_BY = 4  # licence id of COCO: Attribution 2.0
LICENCE = {
    "id": CC_BY,
    "name": "Attribution License",
    "url": "http://creativecommons.org/licenses/by/2.0/",
}
# Those with one clear object come first: `--limit` and the first sheets show them.
PICTURES = {
    377575: "val2017",
    358083: "train2017",
    126107: "val2017",
    208901: "val2017",
    418281: "val2017",
    165518: "val2017",
    565778: "val2017",
    214753: "val2017",
    519208: "val2017",
    343937: "val2017",
    196393: "train2017",
    551780: "val2017",
    160012: "val2017",
    99053: "val2017",
    475678: "val2017",
}


def scaled_size(size_hw: tuple[int, int], longer_side: int = LONGER_SIDE) -> tuple[int, int]:
    """Height and width, pixels, whose longer side is `longer_side` at most."""
    scale = min(1, longer_side / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def scaled_segmentation(
    segmentation: Mapping[str, Any] | Sequence[Sequence[float]],
    old_hw: tuple[int, int],
    new_hw: tuple[int, int],
) -> Any:
    """Scale polygons exactly; give each pixel of an RLE the value at its centre."""
    scale_y, scale_x = (new / old for new, old in zip(new_hw, old_hw, strict=True))
    if not isinstance(segmentation, Mapping):
        return [
            [value * (scale_y if index % 2 else scale_x) for index, value in enumerate(polygon)]
            for polygon in segmentation
        ]
    mask = decode_mask(segmentation)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(new_hw, old_hw, strict=True)
    )
    return encode_masks(mask[rows[:, None], columns][None])[0]


def scaled_annotation(
    annotation: Mapping[str, Any], old_hw: tuple[int, int], new_hw: tuple[int, int]
) -> dict[str, Any]:
    """Scale segmentation, box and area; id, image, category and crowd stay."""
    scale_y, scale_x = (new / old for new, old in zip(new_hw, old_hw, strict=True))
    scales = (scale_x, scale_y, scale_x, scale_y)
    return {
        "id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "iscrowd": annotation["iscrowd"],
        "area": annotation["area"] * scale_x * scale_y,
        "bbox": [value * scale for value, scale in zip(annotation["bbox"], scales, strict=True)],
        "segmentation": scaled_segmentation(annotation["segmentation"], old_hw, new_hw),
    }


def write_photos(coco_folder: Path, output: Path, pictures: Mapping[int, str] = PICTURES) -> None:
    """Write `photos/`, `annotations/instances_photos.json` and `CREDITS.md`.

    Args:
        coco_folder: COCO's pictures and annotations.
        output: Folder of the set.
        pictures: Split of each picture, by the picture's id.
    """
    splits = {
        split: json.loads((coco_folder / "annotations" / f"instances_{split}.json").read_text())
        for split in sorted(set(pictures.values()))
    }
    images, annotations = [], []
    (output / "photos").mkdir(parents=True, exist_ok=True)
    (output / "annotations").mkdir(exist_ok=True)
    for image_id, split in pictures.items():
        (image,) = (image for image in splits[split]["images"] if image["id"] == image_id)
        if image["license"] != CC_BY:
            raise ValueError(f"{image_id}: expected licence {CC_BY}, found {image['license']}")
        old_hw = image["height"], image["width"]
        new_hw = scaled_size(old_hw)
        with Image.open(coco_folder / split / image["file_name"]) as picture:
            small = picture.convert("RGB").resize(new_hw[::-1], Image.Resampling.LANCZOS)
        small.save(output / "photos" / image["file_name"], quality=90, optimize=True)
        kept = {key: image[key] for key in ("id", "file_name", "license", "coco_url", "flickr_url")}
        images.append({**kept, "height": new_hw[0], "width": new_hw[1]})
        annotations += [
            scaled_annotation(annotation, old_hw, new_hw)
            for annotation in splits[split]["annotations"]
            if annotation["image_id"] == image_id
        ]
    content = {
        "info": {
            "description": f"{len(images)} images of COCO 2017 under CC BY 2.0, made smaller",
            "contributor": "COCO Consortium; annotations under CC BY 4.0, scaled to the images",
            "url": "https://cocodataset.org",
        },
        "licenses": [LICENCE],
        "images": images,
        "annotations": annotations,
        "categories": splits["val2017"]["categories"],
    }
    annotation_file = output / "annotations" / "instances_photos.json"
    annotation_file.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    (output / "CREDITS.md").write_text(credits_of(images, pictures))


def credits_of(images: Sequence[Mapping[str, Any]], pictures: Mapping[int, str]) -> str:
    """Name each picture, its source and its licence, as CC BY asks for it."""
    lines = [
        "# Credits of the set `photos`",
        "",
        "The pictures are photographs of [COCO](https://cocodataset.org) 2017. Their authors have",
        f"put them under [Creative Commons Attribution 2.0]({LICENCE['url']}).",
        f"Changes: each was resized to {LONGER_SIDE} pixels on its longer side and saved as JPEG.",
        "COCO gives the address of each picture at Flickr, but neither title nor author: the page",
        "of the photograph, where it is still there, names both.",
        "",
        "The annotations (`annotations/instances_photos.json`) are those of the COCO Consortium,",
        "under [Creative Commons Attribution 4.0](https://creativecommons.org/licenses/by/4.0/).",
        "Changes: they are restricted to these pictures, and outlines, boxes and areas are scaled",
        "with them.",
        "",
        "| COCO id | split | photograph | its page at Flickr | licence |",
        "|---|---|---|---|---|",
    ]
    for image in images:
        url = image["flickr_url"]
        page = f"https://www.flickr.com/photo.gne?id={url.rsplit('/', 1)[1].split('_')[0]}"
        split = pictures[image["id"]]
        licence = f"[CC BY 2.0]({LICENCE['url']})"
        lines.append(f"| {image['id']} | {split} | {url} | {page} | {licence} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("coco_folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_photos(arguments.coco_folder, arguments.output)


if __name__ == "__main__":
    main()
