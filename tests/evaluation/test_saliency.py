"""Saliency scores against a plain loop over thresholds, pixels and images."""

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.evaluation import image_saliency, saliency_score


def plain_f(saliency, truth, threshold):
    found = {tuple(p) for p in np.argwhere(saliency > threshold).tolist()}
    wanted = {tuple(p) for p in np.argwhere(truth).tolist()}
    precision = len(found & wanted) / len(found) if found else 1.0
    recall = len(found & wanted) / len(wanted) if wanted else 1.0
    if precision == recall == 0:
        return 0.0
    return 1.3 * precision * recall / (0.3 * precision + recall)


def test_saliency_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    images, curves, ious, accuracies = [], [], [], []
    for _ in range(3):
        saliency, truth = rng.integers(0, 256, (9, 7)) / 255, rng.random((9, 7)) < 0.4
        mask = saliency > 0.5
        images.append(image_saliency(saliency, mask, truth))
        curves.append([plain_f(saliency, truth, k / 255) for k in range(255)])
        ious.append((mask & truth).sum() / (mask | truth).sum())
        accuracies.append((mask == truth).mean())
        np.testing.assert_allclose(images[-1]["f"], curves[-1], atol=1e-12)
    score = saliency_score(images)
    means = np.mean(curves, axis=0)
    assert score.max_f == pytest.approx(means.max(), abs=1e-12)
    assert score.threshold == means.argmax() / 255
    assert score.iou == pytest.approx(np.mean(ious))
    assert score.accuracy == pytest.approx(np.mean(accuracies))
    assert score.images == 3


def test_saliency_of_a_mask_is_its_f_at_every_threshold():
    truth = np.eye(4, dtype=bool)
    mask = truth | (np.arange(4) == 0)
    found = image_saliency(mask.astype(float), mask, truth)
    assert found["f"] == pytest.approx([plain_f(mask, truth, 0)] * 255)
    assert image_saliency(truth.astype(float), truth, truth)["f"] == [1.0] * 255


@pytest.mark.parametrize("value", [False, True])
def test_empty_masks_and_objects_have_a_score(value):
    nothing, truth = np.zeros((3, 4)), np.full((3, 4), value)
    found = image_saliency(nothing, nothing > 0, truth)
    assert found["f"] == [plain_f(nothing, truth, 0)] * 255
    assert found["accuracy"] == 1 - value


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        (np.full((3, 4), 1.1), r"numbers in \[0, 1\], found 1.1 to 1.1"),
        (np.full((3, 4), -0.1), "found -0.1"),
        (np.full((3, 4), np.nan), "found nan"),
        (np.zeros((4, 3)), "do not compare"),
        (np.zeros((0, 4)), "do not compare"),
    ],
)
def test_saliency_refuses(saliency, message):
    with pytest.raises(InputError, match=message):
        image_saliency(saliency, np.zeros((3, 4), bool), np.zeros((3, 4), bool))


def test_saliency_of_no_image_is_an_error():
    with pytest.raises(InputError, match="one image or more, found none"):
        saliency_score([])
