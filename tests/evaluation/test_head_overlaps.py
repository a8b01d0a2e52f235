"""Attention segmentation against a plain loop over pixels, objects, heads and images."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.evaluation import attention_segmentation_score, head_overlaps
from crate_interp.structures import ImageGeometry

GRID, PATCH, ORIGINAL = (3, 4), 8, (20, 37)
GEOMETRY = ImageGeometry(ORIGINAL, (24, 32), (PATCH, PATCH))


def plain_mask(row: list[float], by: str, keep: Fraction) -> set[tuple[int, int]]:
    """Pixels of the original image whose patch is among the chosen ones."""
    order = sorted(range(len(row)), key=lambda index: -row[index])
    if by == "entries":
        chosen = order[: math.ceil(keep * len(row))]
    else:
        chosen, total = [], sum(map(Fraction, row))
        while sum(Fraction(row[index]) for index in chosen) < keep * total:
            chosen.append(order[len(chosen)])
    (rows, columns), pixels = ORIGINAL, set()
    for y in range(rows):
        for x in range(columns):
            down = int((y + 0.5) * GRID[0] * PATCH / rows) // PATCH
            across = int((x + 0.5) * GRID[1] * PATCH / columns) // PATCH
            if down * GRID[1] + across in chosen:
                pixels.add((y, x))
    return pixels


def plain_scores(images, by, keep):
    """Best head an object, and the mean of every head, over images."""
    best, by_head = [], []
    for attention, truth in images:
        heads = [plain_mask(head.flatten().tolist(), by, keep) for head in attention]
        objects = [{tuple(p) for p in np.argwhere(mask).tolist()} for mask in truth]
        ious = [[len(h & o) / len(h | o) for h in heads] for o in objects]
        if ious:
            best.append(sum(map(max, ious)) / len(ious))
            by_head.append([sum(column) / len(ious) for column in zip(*ious, strict=True)])
    means = [sum(column) / len(by_head) for column in zip(*by_head, strict=True)]
    return sum(best) / len(best), means


@pytest.fixture(scope="module")
def images():
    """Three heads; objects are rectangles of whole pixels, across the patches."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    drawn = []
    for count in (2, 0, 1, 3):
        truth = np.zeros((count, *ORIGINAL), bool)
        for mask in truth:
            top, left = rng.integers(0, 10, size=2)
            mask[top : top + rng.integers(3, 15), left : left + rng.integers(5, 25)] = True
        heads = torch.randn(3, *GRID, generator=generator).flatten(1).softmax(dim=-1)
        drawn.append((heads.unflatten(1, GRID), truth))
    return drawn


@pytest.mark.parametrize("by", ["mass", "entries"])
@pytest.mark.parametrize("keep", [Fraction(3, 5), Fraction(1, 4)])
def test_attention_iou_equals_a_plain_loop(images, by, keep):
    records = [
        head_overlaps(attention, GEOMETRY, truth, by, float(keep)) for attention, truth in images
    ]
    found = attention_segmentation_score(records, 1)
    best, means = plain_scores(images, by, keep)
    assert found.images == 3
    assert found.mean_iou["best head"] == pytest.approx(best, abs=1e-12)
    assert found.mean_iou["one head"] == pytest.approx(max(means), abs=1e-12)
    assert means[found.head] == max(means)
    assert found.mean_iou["one head"] < found.mean_iou["best head"]


def test_attention_on_the_object_alone_has_an_iou_of_one():
    attention = torch.zeros(2, *GRID)
    attention[0, 0, 0] = attention[1, 2, 3] = 1
    truth = np.zeros((2, *GRID), bool)
    truth[0, 0, 0] = truth[1, 2, 3] = True
    truth = GEOMETRY.input_to_original(GEOMETRY.grid_to_input(truth))
    found = attention_segmentation_score([head_overlaps(attention, GEOMETRY, truth)], 1)
    assert found.mean_iou["best head"] == 1
    assert found.mean_iou["one head"] == 0.5  # one head, two objects


def test_attention_iou_of_no_image_is_an_error(images):
    record = head_overlaps(images[1][0], GEOMETRY, images[1][1])
    with pytest.raises(InputError, match="expected images with ground truth, found none"):
        attention_segmentation_score([record], 1)


@pytest.mark.parametrize(
    ("attention", "truth_shape", "message"),
    [
        (torch.ones(2, 4, 3), (1, *ORIGINAL), r"expected shape \(K, 3, 4\), found \(2, 4, 3\)"),
        (torch.ones(3, 4), (1, *ORIGINAL), r"found \(3, 4\)"),
        (torch.ones(2, 3, 4), (1, *ORIGINAL), "expected one number of heads, found {2, 3}"),
        (torch.ones(0, 3, 4), (1, *ORIGINAL), "at least one row and one patch"),
        (torch.ones(3, 3, 4), (1, *GRID), "do not compare"),
        (-torch.ones(3, 3, 4), (1, *ORIGINAL), "at least 0"),
    ],
)
def test_attention_iou_refuses(attention, truth_shape, message):
    others = [(torch.ones(3, *GRID), (1, *ORIGINAL)), (attention, truth_shape)]
    records = (head_overlaps(rows, GEOMETRY, np.ones(shape, bool)) for rows, shape in others)
    with pytest.raises(InputError, match=message):
        attention_segmentation_score(list(records), 1)


def test_attention_iou_refuses_an_empty_object_and_an_unknown_protocol():
    with pytest.raises(InputError, match="found an empty one"):
        head_overlaps(torch.ones(3, *GRID), GEOMETRY, np.zeros((1, *ORIGINAL), bool))
    with pytest.raises(InputError, match="found 'top'"):
        head_overlaps(torch.ones(3, *GRID), GEOMETRY, np.ones((1, *ORIGINAL), bool), "top")
