"""Make the built-in set `photos` of COCO val2017: its pictures, annotations and credits.

    python pipelines/make_photos.py COCO_FOLDER OUTPUT_FOLDER

COCO_FOLDER holds `val2017/` and `annotations/instances_val2017.json`.
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
PICTURES = (
    *(418281, 565778, 297343, 456496, 122745, 303818),
    *(331352, 397133, 458054, 403385, 500663, 58636),
)


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


def write_photos(coco_folder: Path, output: Path, pictures: Sequence[int] = PICTURES) -> None:
    """Write `photos/`, `annotations/instances_photos.json` and `CREDITS.md`."""
    coco = json.loads((coco_folder / "annotations" / "instances_val2017.json").read_text())
    by_id = {image["id"]: image for image in coco["images"]}
    images, annotations = [], []
    (output / "photos").mkdir(parents=True, exist_ok=True)
    (output / "annotations").mkdir(exist_ok=True)
    for image_id in pictures:
        image = by_id[image_id]
        if image["license"] != CC_BY:
            raise ValueError(f"{image_id}: expected licence {CC_BY}, found {image['license']}")
        old_hw = image["height"], image["width"]
        new_hw = scaled_size(old_hw)
        with Image.open(coco_folder / "val2017" / image["file_name"]) as picture:
            small = picture.convert("RGB").resize(new_hw[::-1], Image.Resampling.LANCZOS)
        small.save(output / "photos" / image["file_name"], quality=90, optimize=True)
        kept = {key: image[key] for key in ("id", "file_name", "license", "flickr_url")}
        images.append({**kept, "height": new_hw[0], "width": new_hw[1]})
        annotations += [
            scaled_annotation(annotation, old_hw, new_hw)
            for annotation in coco["annotations"]
            if annotation["image_id"] == image_id
        ]
    info = {
        "description": f"{len(images)} images of COCO val2017 under CC BY 2.0, made smaller",
        "contributor": "COCO Consortium; annotations under CC BY 4.0, scaled to the images",
        "url": "https://cocodataset.org",
    }
    content = {
        "info": info,
        "licenses": [LICENCE],
        "images": images,
        "annotations": annotations,
        "categories": coco["categories"],
    }
    annotation_file = output / "annotations" / "instances_photos.json"
    annotation_file.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n")
    (output / "CREDITS.md").write_text(credits_of(images))


def credits_of(images: Sequence[Mapping[str, Any]]) -> str:
    """Name each picture, its source and its licence, as CC BY asks for it."""
    lines = [
        "# Credits of the set `photos`",
        "",
        "The pictures are photographs of [COCO](https://cocodataset.org) val2017. Their authors",
        f"have put them under [Creative Commons Attribution 2.0]({LICENCE['url']}).",
        f"Changes: each was resized to {LONGER_SIDE} pixels on its longer side and saved as JPEG.",
        "COCO gives the address of each picture at Flickr, but neither title nor author: the page",
        "of the photograph, where it is still there, names both.",
        "",
        "The annotations (`annotations/instances_photos.json`) are those of the COCO Consortium,",
        "under [Creative Commons Attribution 4.0](https://creativecommons.org/licenses/by/4.0/).",
        "Changes: they are restricted to these pictures, and outlines, boxes and areas are scaled",
        "with them.",
        "",
        "| COCO id | photograph | its page at Flickr | licence |",
        "|---|---|---|---|",
    ]
    for image in images:
        url = image["flickr_url"]
        page = f"https://www.flickr.com/photo.gne?id={url.rsplit('/', 1)[1].split('_')[0]}"
        lines.append(f"| {image['id']} | {url} | {page} | [CC BY 2.0]({LICENCE['url']}) |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("coco_folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_photos(arguments.coco_folder, arguments.output)


if __name__ == "__main__":
    main()
