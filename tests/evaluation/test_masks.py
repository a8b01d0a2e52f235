"""Overlap of masks against a plain loop over sets of pixels."""

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.evaluation import MeanIoU, best_overlaps, mask_iou, mean_iou


def _plain_iou(mask: np.ndarray, other: np.ndarray) -> float:
    pixels, others = ({tuple(p) for p in np.argwhere(m).tolist()} for m in (mask, other))
    return len(pixels & others) / len(pixels | others) if pixels | others else 0.0


def _random(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.random((count, 7, 9)) < rng.random((count, 1, 1))


def test_mask_iou_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    masks, others = _random(rng, 4), _random(rng, 3)
    masks[0] = False
    others[0] = False
    expected = [[_plain_iou(mask, other) for other in others] for mask in masks]
    found = mask_iou(masks, others)
    assert found.shape == (4, 3)
    assert found.dtype == np.float64
    assert found.tolist() == expected


@pytest.mark.parametrize(("count", "other_count"), [(0, 3), (2, 0), (0, 0)])
def test_mask_iou_of_no_masks_is_empty(count, other_count):
    masks, others = np.ones((count, 4, 5), bool), np.ones((other_count, 4, 5), bool)
    assert mask_iou(masks, others).shape == (count, other_count)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.ones((2, 4, 5), np.uint8), "found uint8"),
        (np.ones((4, 5), bool), r"found bool of shape \(4, 5\)"),
        (np.ones((2, 5, 4), bool), "do not compare"),
    ],
)
def test_mask_iou_refuses_other_arrays(masks, message):
    with pytest.raises(InputError, match=message):
        mask_iou(masks, np.ones((1, 4, 5), bool))


def test_best_mask_iou_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    records, of_images = [], []
    for heads, objects in ((3, 2), (1, 1), (6, 4)):
        masks, truth = _random(rng, heads), _random(rng, objects) | (np.arange(9) == 0)
        records.append(best_overlaps(masks, truth))
        best = [max(_plain_iou(mask, other) for mask in masks) for other in truth]
        of_images.append(sum(best) / len(best))
    assert len(set(of_images)) == 3
    found = mean_iou(records)
    assert found.images == 3
    assert found.mean_iou == pytest.approx(sum(of_images) / 3, abs=1e-15)


def test_best_mask_iou_averages_over_images_not_over_objects():
    whole = np.ones((1, 4, 4), bool)
    records = [best_overlaps(whole, whole), best_overlaps(~whole, np.repeat(whole, 3, axis=0))]
    assert mean_iou(records) == MeanIoU(mean_iou=0.5, images=2)


def test_best_mask_iou_counts_images_without_masks_but_not_without_objects():
    some, none = np.ones((1, 4, 4), bool), np.ones((0, 4, 4), bool)
    records = [best_overlaps(some, none)]
    with pytest.raises(InputError, match="found none"):
        mean_iou(records)
    records += [best_overlaps(some, some), best_overlaps(none, some)]
    assert mean_iou(records) == MeanIoU(mean_iou=0.5, images=2)


def test_best_mask_iou_refuses_an_empty_object():
    with pytest.raises(InputError, match="empty"):
        best_overlaps(np.ones((1, 4, 4), bool), np.zeros((1, 4, 4), bool))
