"""Export formats of tools to label with: labelme, Label Studio, pictures."""

import csv
import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crate_interp.data.exports.label_studio import packed_rle
from tests.data.export_cases import TORN, WHOLE, exported, images_of, mask_of, overlap, write


def drawn_by_labelme(shapes, hw):
    """Masks by group, drawn as labelme's `shapes_to_label` does: Pillow's polygons."""
    masks = {}
    for shape in shapes:
        assert shape["shape_type"] == "polygon"
        assert len(shape["points"]) > 2
        picture = Image.new("1", hw[::-1])
        corners = [tuple(point) for point in shape["points"]]
        ImageDraw.Draw(picture).polygon(corners, outline=1, fill=1)
        group = shape["group_id"]
        masks[group] = masks.get(group, False) | np.asarray(picture)
    return masks


LABELME_KEYS = {
    "label": str,
    "points": list,
    "group_id": int,
    "shape_type": str,
    "flags": dict,
    "description": str,
}


def test_labelme_draws_every_mask_again(tmp_path, reference):
    masks = {**WHOLE, **TORN}
    for path in sorted(reference.glob("maskcut_*.npz")):
        for number, mask in enumerate(np.load(path)["maskcut_masks"]):
            masks[path.stem, number] = np.kron(mask, np.ones((20, 20))).astype(bool)
    images = images_of([[mask] for mask in masks.values()])
    write(tmp_path, "labelme", images, "masks of a test")
    overlaps = {}
    for (name, mask), image in zip(masks.items(), images, strict=True):
        content = json.loads((tmp_path / "labelme" / f"{image.image_id}.json").read_text())
        assert content["imagePath"] == image.file_name
        assert content["imageData"] is None
        assert (content["imageHeight"], content["imageWidth"]) == mask.shape
        for shape in content["shapes"]:
            assert {key: type(shape[key]) for key in LABELME_KEYS} == LABELME_KEYS
        drawn = drawn_by_labelme(content["shapes"], mask.shape)
        assert set(drawn) == ({1} if mask.any() else set())
        if mask.any():
            overlaps[name] = overlap(drawn[1], mask)
    assert min(overlaps.values()) > 0.98
    assert all(overlaps[name] == 1 for name in WHOLE)
    assert np.mean([value == 1 for value in overlaps.values()]) > 0.9


def test_labelme_tells_masks_and_scores_apart(tmp_path):
    masks = [WHOLE["a hole"], TORN["two parts, one with a hole"], WHOLE["a line"]]
    write(tmp_path, "labelme", [exported(5, "a/b.jpg", masks, [0.5, 0.25, 1 / 3])])
    content = json.loads((tmp_path / "labelme" / "a" / "b.json").read_text())
    assert content["imagePath"] == "b.jpg"
    groups = [(shape["group_id"], shape["score"]) for shape in content["shapes"]]
    assert groups == [(1, 0.5), (2, 0.25), (2, 0.25), (3, 1 / 3)]
    drawn = drawn_by_labelme(content["shapes"], (40, 60))
    np.testing.assert_array_equal([drawn[number] for number in (1, 2, 3)], masks)


def unpacked(rle):
    """The values that Label Studio's RLE stands for, read bit by bit."""
    bits = "".join(f"{value:08b}" for value in rle)
    place = 0

    def read(size):
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    count, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run = read(1)
        length = read(lengths[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


@pytest.mark.parametrize("name", [*WHOLE, *TORN])
def test_label_studio_reads_the_same_mask(name):
    mask = {**WHOLE, **TORN}[name]
    rgba = unpacked(packed_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(rgba, np.where(mask, 255, 0)[:, :, None].repeat(4, axis=2))


def test_label_studio_rle_is_that_of_its_own_converter():
    # label_studio_sdk.converter.brush.mask2rle of version 2.1.2, less a last byte of padding
    expected = [0, 0, 0, 24, 57, 27, 252, 96, 22, 255, 231, 0]
    assert packed_rle(np.array([[0, 1, 1], [1, 0, 0]], bool)) == expected


def test_label_studio_packs_runs_longer_than_its_longest():
    mask = mask_of((200, 300), (0, 0, 199, 300))
    np.testing.assert_array_equal(unpacked(packed_rle(mask)), np.where(mask, 255, 0).repeat(4))


def test_label_studio_tasks_have_the_documented_keys(tmp_path):
    images = [
        exported(7, "a b/é.png", [WHOLE["a hole"], WHOLE["a line"]], [0.5, 1 / 3]),
        exported(8, "none.png", np.zeros((0, 40, 60), bool)),
    ]
    write(tmp_path, "label-studio", images, "masks of a test")
    first, second = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    assert first["data"] == {"image": "/data/local-files/?d=a%20b/%C3%A9.png"}
    ((one, other),) = [prediction["result"] for prediction in first["predictions"]]
    assert [region["score"] for region in (one, other)] == [0.5, 1 / 3]
    assert one["id"] != other["id"]
    assert one["value"] == {
        "format": "rle",
        "rle": packed_rle(WHOLE["a hole"]),
        "brushlabels": ["object"],
    }
    assert (one["original_height"], one["original_width"], one["image_rotation"]) == (40, 60, 0)
    setup = ET.parse(tmp_path / "label-studio" / "setup.xml").getroot()
    brush, picture = setup.find("BrushLabels"), setup.find("Image")
    assert (one["from_name"], one["to_name"]) == (brush.get("name"), picture.get("name"))
    assert one["type"] == brush.tag.lower()
    assert picture.get("value") == "$image"
    assert [label.get("value") for label in brush] == ["object"]
    assert second["predictions"] == [{"model_version": "masks of a test", "result": []}]


def test_png_has_a_picture_per_mask_and_a_table_of_them(tmp_path):
    masks = [WHOLE["a hole"], WHOLE["the whole image"]]
    images = [
        exported(7, "a/é.png", masks, [0.5, 1 / 3]),
        exported(8, "none.png", np.zeros((0, 40, 60), bool)),
    ]
    write(tmp_path, "png", images)
    with (tmp_path / "masks" / "masks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a/é.png", "a/é.png"]
    assert [float(row["score"]) for row in rows] == [0.5, 1 / 3]
    for row, mask in zip(rows, masks, strict=True):
        picture = np.asarray(Image.open(tmp_path / "masks" / row["mask"]))
        np.testing.assert_array_equal(picture, np.where(mask, 255, 0))
