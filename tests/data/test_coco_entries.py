"""Instances in the forms of COCO and of supervision, and back: the same to the last bit."""

import json
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from crate_interp import InputError, Instances
from crate_interp.data import encode_masks


def random_instances(seed, count=3, frame="original"):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    masks = rng.random((count, height, width)) < rng.random((count, 1, 1))
    corners = rng.random((count, 2)) * 640
    boxes = np.hstack([corners, corners + rng.random((count, 2)) * 640])
    return Instances(masks, rng.random(count), boxes, frame)


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    assert found.frame == expected.frame


@pytest.mark.parametrize("seed", range(3))
def test_coco_gives_back_masks_scores_and_boxes_to_the_last_bit(seed):
    instances = random_instances(seed, count=400)
    entries = json.loads(json.dumps(instances.to_coco(7)))
    assert {entry["image_id"] for entry in entries} == {7}
    assert_equal(Instances.from_coco(entries), instances)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_coco_entries_are_read_by_pycocotools(tmp_path):
    instances = random_instances(1)
    _, height, width = instances.masks.shape
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 4, "height": int(height), "width": int(width)}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(instances.to_coco(4))
    annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[4]))
    for annotation, mask in zip(annotations, instances.masks, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(annotation).astype(bool), mask)
    assert_equal(Instances.from_coco(annotations), instances)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_coco_polygons_are_drawn_as_pycocotools_draws_them():
    polygon = [2.5, 1.0, 17.0, 3.0, 12.0, 14.5]
    coco = COCO()
    coco.imgs = {1: {"height": 20, "width": 30}}
    entry = {"image_id": 1, "segmentation": [polygon]}
    instances = Instances.from_coco([entry], (20, 30))
    np.testing.assert_array_equal(instances.masks[0], coco.annToMask(entry).astype(bool))
    assert instances.scores.tolist() == [1]
    rows, columns = instances.masks[0].nonzero()
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert instances.boxes_xyxy[0].tolist() == tight


def test_no_entries_are_no_masks_of_the_size_given():
    empty = Instances(np.zeros((0, 5, 4), bool))
    assert empty.to_coco() == []
    assert_equal(Instances.from_coco([], (5, 4)), empty)


RLE = encode_masks(np.ones((1, 5, 4), bool))[0]


@pytest.mark.parametrize(
    ("entries", "hw", "message"),
    [
        ([], None, "hw: expected height and width"),
        ([{"segmentation": [[0, 0, 3, 0, 3, 3]]}], None, "hw: expected height and width"),
        ([{"bbox": [0, 0, 1, 1]}], (5, 4), "segmentation"),
        ([{"segmentation": RLE}], (4, 5), r"\[0\]: segmentation: expected size \[4, 5\]"),
        ([{"segmentation": {"size": [5, 4]}}], None, r"\[0\]: segmentation: counts: expected runs"),
        ([{"segmentation": RLE, "bbox": [1, 2, 3]}], None, "bbox"),
        ([{"segmentation": RLE, "score": float("nan")}], None, "scores: expected finite"),
        (
            [{"segmentation": RLE, "image_id": 1}, {"segmentation": RLE, "image_id": 2}],
            None,
            "expected those of one image",
        ),
    ],
)
def test_from_coco_refuses(entries, hw, message):
    with pytest.raises(InputError, match=message):
        Instances.from_coco(entries, hw)


def test_to_coco_refuses_masks_of_the_grid():
    with pytest.raises(InputError, match="expected the frame of the original image"):
        random_instances(0, frame="grid").to_coco()


@pytest.mark.parametrize("frame", ["grid", "input", "original"])
@pytest.mark.parametrize("count", [0, 3])
def test_supervision_gives_back_the_same_instances(frame, count):
    pytest.importorskip("supervision", reason="makes Detections")
    instances = random_instances(2, count, frame)
    detections = instances.to_supervision()
    assert len(detections) == count
    assert detections.class_id.tolist() == count * [0]
    assert_equal(Instances.from_supervision(detections), instances)


def test_detections_of_others_need_no_scores_and_may_be_compact():
    supervision = pytest.importorskip("supervision", reason="makes Detections")
    expected = Instances(random_instances(3).masks)
    given = supervision.Detections(xyxy=expected.boxes_xyxy, mask=expected.masks)
    assert_equal(Instances.from_supervision(given), expected)
    if hasattr(given, "to_compact_masks"):
        assert_equal(Instances.from_supervision(given.to_compact_masks()), expected)


def test_supervision_is_refused_without_masks_or_without_supervision(monkeypatch):
    supervision = pytest.importorskip("supervision", reason="makes Detections")
    for wrong in (supervision.Detections.empty(), [1, 2], None):
        with pytest.raises(InputError, match="detections: expected masks, found"):
            Instances.from_supervision(wrong)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="needs supervision: pip install supervision"):
        random_instances(0).to_supervision()
