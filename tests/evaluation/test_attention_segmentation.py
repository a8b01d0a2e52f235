"""Attention segmentation against a plain loop over pixels, classes, heads and images."""

import math

import numpy as np
import pytest
import torch

from crate_interp.data import VOID
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    AttentionProtocol,
    attention_segmentation_score,
    candidate_masks,
    head_overlaps,
    image_overlaps,
)
from crate_interp.segmentation import principal_component
from crate_interp.structures import ImageGeometry

GRID, PATCH, ORIGINAL, HEADS = (3, 4), 8, (20, 37), 3
GEOMETRY = ImageGeometry(ORIGINAL, (24, 32), (PATCH, PATCH))
CLASSES = 5


def draw(seed):
    """Attention, features, and a label map of blocks of classes, void and background."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    labels, objects = np.zeros(ORIGINAL, np.uint8), np.zeros(ORIGINAL, np.uint8)
    for number in range(1, 1 + int(rng.integers(1, 4))):
        top, left = rng.integers(0, 12, size=2)
        box = np.s_[top : top + rng.integers(4, 12), left : left + rng.integers(4, 20)]
        labels[box], objects[box] = rng.integers(1, CLASSES), number
    labels[:2], objects[:2] = VOID, VOID
    attention = torch.randn(HEADS, *GRID, generator=generator).flatten(1).softmax(dim=-1)
    features = torch.randn(6, GRID[0] * GRID[1], generator=generator)
    return attention.unflatten(1, GRID), features, labels, objects


def plain_cells(row, by):
    """Patches that are kept of a row of attention."""
    order = sorted(range(len(row)), key=lambda index: -row[index])
    if by == "entries":
        return set(order[: math.ceil(0.6 * len(row))])
    kept, total = [], sum(row)
    while sum(row[index] for index in kept) < 0.6 * total:
        kept.append(order[len(kept)])
    return set(kept)


def cell_of(y, x):
    """Patch that a pixel of the original image lies in."""
    down = int((y + 0.5) * GRID[0] * PATCH / ORIGINAL[0]) // PATCH
    across = int((x + 0.5) * GRID[1] * PATCH / ORIGINAL[1]) // PATCH
    return down * GRID[1] + across


def plain_image(example, by, per, background, resolution):
    """IoU by mask and class (or object), and the classes."""
    attention, features, labels, objects = example
    rows = [head.flatten().double().tolist() for head in [*attention, attention.mean(dim=0)]]
    masks = [plain_cells(row, by) for row in rows]
    principal = principal_component(features, GRID).mask.flatten().tolist()
    masks.append({index for index, inside in enumerate(principal) if inside})
    if resolution == "grid":
        places = {
            (i, j): (
                int((PATCH * i + PATCH / 2) * ORIGINAL[0] / (GRID[0] * PATCH)),
                int((PATCH * j + PATCH / 2) * ORIGINAL[1] / (GRID[1] * PATCH)),
            )
            for i in range(GRID[0])
            for j in range(GRID[1])
        }
        pixels = [(labels[at], objects[at], i * GRID[1] + j) for (i, j), at in places.items()]
    else:
        pixels = [
            (labels[y, x], objects[y, x], cell_of(y, x))
            for y in range(ORIGINAL[0])
            for x in range(ORIGINAL[1])
        ]
    pixels = [pixel for pixel in pixels if pixel[0] != VOID]
    kinds = sorted({pixel[per == "object"] for pixel in pixels} - (set() if background else {0}))
    ious, classes = [], []
    for kind in kinds:
        own = [pixel for pixel in pixels if pixel[per == "object"] == kind]
        found = [int(label) for label, _, _ in own]
        classes.append(max(sorted(set(found)), key=found.count))
        column = []
        for mask in masks:
            inside = sum(cell in mask for _, _, cell in own)
            covered = sum(cell in mask for _, _, cell in pixels)
            column.append(inside / (covered + len(own) - inside))
        ious.append(column)
    return np.array(ious).reshape(len(kinds), HEADS + 2).T, classes


def found_image(example, by, per, background, resolution):
    attention, features, labels, objects = example
    protocol = AttentionProtocol(by, 0.6, None if background else 0, resolution)
    masks = candidate_masks(attention, features, protocol)
    return image_overlaps(masks, GEOMETRY, labels, objects if per == "object" else None, protocol)


@pytest.mark.parametrize("by", ["entries", "mass"])
@pytest.mark.parametrize("per", ["class", "object"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("resolution", ["full", "grid"])
def test_overlaps_and_scores_equal_a_plain_loop(by, per, background, resolution):
    examples = [draw(seed) for seed in range(4)]
    expected = [plain_image(example, by, per, background, resolution) for example in examples]
    found = [found_image(example, by, per, background, resolution) for example in examples]
    for image, (ious, classes) in zip(found, expected, strict=True):
        rows = np.vstack([image["heads"], image["mean_head"], image["principal"]])
        np.testing.assert_allclose(rows, ious, rtol=0, atol=1e-12)
        assert image["classes"] == classes
    score = attention_segmentation_score(found, CLASSES)

    means = [sum(ious[head].mean() for ious, _ in expected) / 4 for head in range(HEADS)]
    assert score.head == means.index(max(means))
    of_method = {
        "best head": lambda ious: ious[:HEADS].max(axis=0),
        "one head": lambda ious: ious[score.head],
        "mean head": lambda ious: ious[HEADS],
        "principal component": lambda ious: ious[HEADS + 1],
    }
    for method, choose in of_method.items():
        images = [choose(ious).mean() for ious, _ in expected]
        assert score.mean_iou[method] == pytest.approx(sum(images) / 4, abs=1e-12)
        for label in range(CLASSES):
            values = [
                value
                for ious, classes in expected
                for value, own in zip(choose(ious), classes, strict=True)
                if own == label
            ]
            wanted = sum(values) / len(values) if values else math.nan
            np.testing.assert_allclose(score.by_class[method][label], wanted, atol=1e-12)
    occurs = [sum(label in classes for _, classes in expected) for label in range(CLASSES)]
    assert score.images_of_class.tolist() == occurs
    assert score.images == 4


def test_heads_agree_with_the_metric_of_the_probes():
    of_probes, images = [], []
    for seed in range(3):
        attention, features, labels, _ = draw(seed)
        labels = np.where(labels == VOID, 0, labels)
        present = np.setdiff1d(labels, 0)
        truth = labels == present[:, None, None]
        of_probes.append(head_overlaps(attention, GEOMETRY, truth, "mass"))
        images.append(
            found_image((attention, features, labels, None), "mass", "class", False, "full")
        )
    score = attention_segmentation_score(images, CLASSES)
    expected = attention_segmentation_score(of_probes, 1)
    for method in ("best head", "one head"):
        assert score.mean_iou[method] == pytest.approx(expected.mean_iou[method], abs=1e-12)
    assert score.head == expected.head


def overlaps(heads, objects):
    row = [0.0] * objects
    return {
        "classes": [0] * objects,
        "heads": [row] * heads,
        "mean_head": row,
        "principal": row,
    }


def test_images_without_ground_truth_do_not_count():
    with pytest.raises(InputError, match="expected images with ground truth, found none"):
        attention_segmentation_score([overlaps(2, 0)], 3)
    with pytest.raises(InputError, match="found none"):
        attention_segmentation_score([], 3)
    assert attention_segmentation_score([overlaps(2, 0), overlaps(3, 1)], 3).images == 1


def test_overlaps_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="one number of heads, found"):
        attention_segmentation_score([overlaps(2, 1), overlaps(3, 1)], 3)
    with pytest.raises(InputError, match=r"expected \(K, G\) and \(G,\)"):
        attention_segmentation_score([{**overlaps(3, 2), "heads": [[0.0]] * 3}], 3)
    masks = np.ones((HEADS + 2, *GRID), bool)
    with pytest.raises(InputError, match=r"expected \(20, 37\) pixels, found \(3, 4\)"):
        image_overlaps(masks, GEOMETRY, np.zeros(GRID, np.uint8), None, AttentionProtocol())
