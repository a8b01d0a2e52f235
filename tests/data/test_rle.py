"""Run-length encoding against a plain loop and pycocotools; COCO entries against hand-made ones."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from crate_interp.data.rle import (
    annotations_of,
    area_of,
    check_rle,
    decode_mask,
    encode_masks,
    results_of,
)
from crate_interp.errors import InputError
from crate_interp.structures import Instances


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0, 1, 0, ... down the columns."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def _random_masks(rng: np.random.Generator) -> np.ndarray:
    height, width = rng.integers(1, 40, 2)
    return rng.random((3, height, width)) < rng.random()


def test_encode_and_decode_agree_with_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        masks = _random_masks(rng)
        for mask, rle in zip(masks, encode_masks(masks), strict=True):
            check_rle(rle)
            uncompressed = {"size": list(mask.shape), "counts": _runs(mask)}
            assert (
                coco_mask.frPyObjects(uncompressed, *mask.shape)["counts"] == rle["counts"].encode()
            )
            for form in (rle, uncompressed, {**rle, "counts": rle["counts"].encode()}):
                decoded = decode_mask(form)
                assert decoded.dtype == np.bool_
                assert np.array_equal(decoded, mask)


def test_encode_takes_uniform_and_large_masks():
    masks = np.stack([np.zeros((700, 900), bool), np.ones((700, 900), bool)])
    assert [decode_mask(rle).sum() for rle in encode_masks(masks)] == [0, 700 * 900]
    assert json.loads(json.dumps(encode_masks(masks))) == encode_masks(masks)


def test_encode_of_no_masks_is_empty():
    assert encode_masks(np.zeros((0, 5, 4), bool)) == []


@pytest.mark.parametrize(
    "masks",
    [np.zeros((2, 5, 4), np.uint8), np.zeros((5, 4), bool), np.zeros((2, 0, 4), bool)],
)
def test_encode_refuses_other_arrays(masks):
    with pytest.raises(InputError, match=r"expected bool of shape \(M, H, W\)"):
        encode_masks(masks)


MASK = np.arange(20).reshape(5, 4) % 3 == 0
RLE = encode_masks(MASK[None])[0]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "expected an RLE"),
        ({"counts": "0"}, "size: expected"),
        ({**RLE, "size": [5]}, "size: expected"),
        ({**RLE, "size": [5, -4]}, "size: expected"),
        ({**RLE, "size": [5.0, 4]}, "size: expected"),
        ({**RLE, "size": [4, 4]}, "expected runs of 4 x 4 pixels together, found 20"),
        ({"size": [5, 4]}, "counts: expected"),
        ({**RLE, "counts": 7}, "counts: expected"),
        ({**RLE, "counts": ""}, "damaged string"),
        ({**RLE, "counts": RLE["counts"][:-1]}, "counts: expected"),
        ({**RLE, "counts": RLE["counts"] + "o"}, "damaged string"),
        ({**RLE, "counts": "\u00ff" * 4}, "damaged string"),
        ({**RLE, "counts": " " * 4}, "damaged string"),
        ({**RLE, "counts": "o" * 30 + "0"}, "damaged string"),
        ({**RLE, "counts": []}, "found 0"),
        ({**RLE, "counts": [10, 11]}, "found 21"),
        ({**RLE, "counts": [-1, 21]}, "negative"),
        ({**RLE, "counts": [10.5, 9.5]}, "expected integers"),
        ({**RLE, "counts": [10**400, 10]}, "found one of an integer of about"),
        ({**RLE, "counts": [2**63, 2**63, 20]}, "found one of 9223372036854775808"),
        ({**RLE, "counts": [2**62] * 4 + [20]}, "found one of 4611686018427387904"),
        ({**RLE, "counts": "\ud800"}, "damaged string"),
        ({**RLE, "counts": "0" * (1 << 24) + "0"}, "expected a length of at most"),
        ({**RLE, "size": [10**6, 10**6]}, "size: expected at most 536870912 pixels"),
        ({**RLE, "size": [10**400, 1]}, "size: expected at most"),
        ({**RLE, "size": ["x" * 9000, 4]}, "size: expected"),
    ],
)
def test_damaged_rle_is_refused(rle, message):
    with pytest.raises(InputError, match=message) as caught:
        check_rle(rle)
    assert len(str(caught.value)) <= 500
    with pytest.raises(InputError, match=message):
        decode_mask(rle)


@pytest.fixture
def instances() -> Instances:
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4:, 0] = True
    return Instances(masks, scores=np.array([0.123456789012345, 1.0]))


def test_results_of_writes_coco_results(instances):
    first, second = results_of(instances, np.int64(42))
    assert first == {
        "image_id": 42,
        "category_id": 1,
        "segmentation": encode_masks(instances.masks)[0],
        "bbox": [2.0, 1.0, 4.0, 2.0],
        "score": 0.123456789012345,
    }
    assert second["bbox"] == [0.0, 4.0, 1.0, 2.0]
    assert json.loads(json.dumps([first, second])) == [first, second]


def test_results_of_rounds_boxes_to_hundredths(instances):
    boxes = np.array([[1 / 3, 0, 2 / 3, 5], [0, 0, 1, 1]])
    moved = Instances(instances.masks, boxes_xyxy=boxes)
    assert results_of(moved, 1)[0]["bbox"] == [0.33, 0.0, 0.33, 5.0]


def test_annotations_of_writes_coco_annotations(instances):
    annotations = annotations_of(instances, 42, first_id=10)
    results = results_of(instances, 42)
    assert annotations == [
        {"id": 10, **results[0], "area": 8, "iscrowd": 0},
        {"id": 11, **results[1], "area": 2, "iscrowd": 0},
    ]
    assert json.loads(json.dumps(annotations)) == annotations


def test_entries_of_no_instances_are_empty():
    empty = Instances(np.zeros((0, 6, 8), bool))
    assert results_of(empty, 1) == []
    assert annotations_of(empty, 1, 1) == []


def test_entries_refuse_another_frame_and_the_id_zero(instances):
    grid = Instances(instances.masks, frame="grid")
    with pytest.raises(InputError, match="found 'grid'"):
        results_of(grid, 1)
    with pytest.raises(InputError, match="first_id: expected at least 1, found 0"):
        annotations_of(instances, 1, 0)


def test_area_of_counts_the_pixels_of_a_mask():
    masks = np.random.default_rng(0).random((4, 30, 50)) < 0.5
    masks[0], masks[1] = False, True
    assert [area_of(rle) for rle in encode_masks(masks)] == [int(mask.sum()) for mask in masks]
