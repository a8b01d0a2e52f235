"""Export formats, read back by the tools that they are for."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from crate_interp.data.export import EXPORTS
from crate_interp.data.exports.yolo import polygon_of
from crate_interp.data.rle import annotations_of, decode_mask
from crate_interp.errors import InputError
from tests.data.export_cases import TORN, WHOLE, exported, images_of, overlap, write


def read_yolo(folder, images):
    """Masks as `supervision` reads them, by image."""
    supervision = pytest.importorskip("supervision", reason="reads YOLO's labels")
    for image in images:
        path = folder / "yolo" / "images" / image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image.hw[::-1]).save(path)
    read = supervision.DetectionDataset.from_yolo(
        *(str(folder / "yolo" / name) for name in ("images", "labels", "data.yaml")),
        force_masks=True,
    )
    assert read.classes == ["object"]
    return [read.annotations[str(folder / "yolo" / "images" / image.file_name)] for image in images]


def test_yolo_gives_back_every_pixel_of_masks_of_one_part(tmp_path):
    images = images_of([[mask] for mask in WHOLE.values()])
    write(tmp_path, "yolo", images)
    for name, found, image in zip(WHOLE, read_yolo(tmp_path, images), images, strict=True):
        np.testing.assert_array_equal(found.mask, image.instances.masks, err_msg=name)
        assert found.class_id.tolist() == [0]


def test_yolo_joins_parts_by_short_bridges(tmp_path, reference):
    cells = [np.load(path) for path in sorted(reference.glob("maskcut_*.npz"))]
    masks = [
        np.kron(mask, np.ones((20, 20))).astype(bool)
        for arrays in cells
        for mask in (*arrays["maskcut_masks"], arrays["tokencut_mask"])
        if mask.any()
    ]
    images = images_of([[mask] for mask in masks])
    write(tmp_path, "yolo", images)
    overlaps = [
        overlap(found.mask[0], mask)
        for found, mask in zip(read_yolo(tmp_path, images), masks, strict=True)
    ]
    assert len(overlaps) > 30
    assert np.mean(overlaps) > 0.995
    assert np.mean(np.array(overlaps) >= 0.98) > 0.9
    assert min(overlaps) > 0.9  # a mask of eleven parts, of a cell or two each


def test_a_line_of_yolo_has_a_class_and_three_corners_or_more():
    for mask in WHOLE.values():
        corners = polygon_of(mask)
        assert len(corners) >= 3
        assert (corners >= 0).all()
        assert (corners < mask.shape[::-1]).all()
    ((name, text), _) = EXPORTS["yolo"]().files([exported(1, "a/b.jpg", [WHOLE["one pixel"]])], "")
    assert name == "yolo/labels/a/b.txt"
    assert text == "0" + 3 * f" {9.25 / 60:.6f} {7.25 / 40:.6f}" + "\n"


@pytest.mark.parametrize("name", ["yolo", "labelme", "png"])
def test_formats_of_a_file_per_image_refuse_images_that_they_cannot_tell_apart(tmp_path, name):
    images = [exported(1, "a.png", [WHOLE["a line"]]), exported(2, "a.jpg", [WHOLE["a line"]])]
    with pytest.raises(InputError, match=rf"{name}: expected .*found 'a\.png' and 'a\.jpg'"):
        write(tmp_path, name, images)


def test_parquet_has_a_row_a_mask_with_the_same_rle(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads and writes Parquet")
    monkeypatch.setattr("crate_interp.data.exports.parquet._ROWS", 2)
    images = [
        exported(7, "a/é.png", [WHOLE["a hole"], WHOLE["a line"]], [0.5, 1 / 3]),
        exported(8, "none.png", np.zeros((0, 40, 60), bool)),
        exported(9, "b.png", [WHOLE["one pixel"]]),
    ]
    write(tmp_path, "parquet", images, "masks of a test")
    file = parquet.ParquetFile(tmp_path / "masks.parquet")
    assert file.num_row_groups == 2
    assert file.schema_arrow.metadata[b"title"] == b"masks of a test"
    rows = file.read().to_pylist()
    assert [row["file_name"] for row in rows] == ["a/é.png", "a/é.png", "b.png"]
    annotations = [
        entry for image in images for entry in annotations_of(image.instances, image.image_id, 1)
    ]
    for row, entry in zip(rows, annotations, strict=True):
        assert {"size": [row["height"], row["width"]], "counts": row["counts"]} == entry[
            "segmentation"
        ]
        for name in ("image_id", "bbox", "area", "score"):
            assert row[name] == entry[name]
    np.testing.assert_array_equal(
        decode_mask({"size": [40, 60], "counts": rows[0]["counts"]}), WHOLE["a hole"]
    )


def test_parquet_is_read_by_pandas(tmp_path):
    pytest.importorskip("pyarrow", reason="writes Parquet")
    pandas = pytest.importorskip("pandas", reason="reads Parquet")
    write(tmp_path, "parquet", images_of([[WHOLE["a hole"], WHOLE["a line"]], [WHOLE["a line"]]]))
    table = pandas.read_parquet(tmp_path / "masks.parquet")
    assert table["image_id"].tolist() == [1, 1, 2]
    assert table["area"].sum() == sum(WHOLE[name].sum() for name in ("a hole", "a line", "a line"))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'crate-interp\[parquet\]'"):
        next(EXPORTS["parquet"]().files([], ""))


def test_coco_is_written_piece_by_piece_as_json_writes_the_whole():
    images = [
        exported(7, 'a "quoted"\n é.png', [WHOLE["a hole"], WHOLE["a line"]], [0.5, 1 / 3]),
        exported(8, "none.png", np.zeros((0, 40, 60), bool)),
        exported(9, "b.png", [WHOLE["one pixel"]]),
    ]
    ((name, content),) = EXPORTS["coco"]().files(images, "Masks")
    written = io.BytesIO()
    content(written)
    expected = {
        "info": {"description": "Masks, found without labels"},
        "images": [
            {"id": image.image_id, "file_name": image.file_name, "height": 40, "width": 60}
            for image in images
        ],
        "annotations": [
            *annotations_of(images[0].instances, 7, 1),
            *annotations_of(images[2].instances, 9, 3),
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    assert (name, written.getvalue().decode()) == (
        "annotations.json",
        json.dumps(expected, indent=1) + "\n",
    )


def test_coco_has_what_cvat_imports():
    """CVAT reads COCO by datumaro, which takes masks from compressed RLE.

    Datumaro 1.13 gave the masks of this file back pixel by pixel, with their scores.
    """
    masks = [*WHOLE.values(), *TORN.values()]
    ((_, content),) = EXPORTS["coco"]().files([exported(3, "a/b.png", masks)], "Masks")
    written = io.BytesIO()
    content(written)
    coco = json.loads(written.getvalue())
    fields = {
        "images": {"id": int, "height": int, "width": int, "file_name": str},
        "categories": {"id": int, "name": str},
        "annotations": {
            "id": int,
            "image_id": int,
            "category_id": int,
            "iscrowd": int,
            "segmentation": dict,
            "bbox": list,
            "score": float,
        },
    }
    for section, kinds in fields.items():
        assert coco[section]
        for entry in coco[section]:
            assert {name: type(entry[name]) for name in kinds} == kinds
    for annotation, mask in zip(coco["annotations"], masks, strict=True):
        assert annotation["category_id"] == coco["categories"][0]["id"]
        assert annotation["image_id"] == coco["images"][0]["id"]
        assert isinstance(annotation["segmentation"]["counts"], str)
        np.testing.assert_array_equal(decode_mask(annotation["segmentation"]), mask)


@pytest.mark.parametrize("name", ["coco", "yolo", "parquet", "labelme", "label-studio", "png"])
def test_no_image_at_all_makes_files_without_masks(tmp_path, name):
    if name == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="reads and writes Parquet")
    write(tmp_path, name, [])
    if name == "coco":
        content = json.loads((tmp_path / "annotations.json").read_text())
        assert (content["images"], content["annotations"]) == ([], [])
    elif name == "yolo":
        assert [path.name for path in (tmp_path / "yolo").iterdir()] == ["data.yaml"]
    elif name == "labelme":
        assert list(tmp_path.iterdir()) == []
    elif name == "label-studio":
        assert json.loads((tmp_path / "label-studio" / "tasks.json").read_text()) == []
    elif name == "png":
        assert (tmp_path / "masks" / "masks.csv").read_text() == "mask,image,score\n"
    else:
        assert parquet.read_table(tmp_path / "masks.parquet").num_rows == 0
