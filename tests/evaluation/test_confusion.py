"""Semantic scores against a plain loop over pixels and over all assignments of clusters."""

import itertools
import math

import numpy as np
import pytest

from crate_interp.data import VOID
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    image_confusion,
    match_clusters,
    semantic_score,
    total_confusion,
)


def confusion_of(labels, predicted, num_classes, num_predicted):
    """The confusion of a set of one image."""
    record = image_confusion(labels, predicted, num_classes, num_predicted)
    return total_confusion([record], num_classes, num_predicted)


def test_confusion_counts_every_pixel_that_is_not_void():
    labels = np.array([[0, 1, VOID], [2, 2, 0]], np.uint8)
    predicted = np.array([[0, 3, 3], [2, 1, 0]])
    expected = np.zeros((4, 3), int)
    for truth, found in zip(labels.flat, predicted.flat, strict=True):
        if truth != VOID:
            expected[found, truth] += 1
    assert confusion_of(labels, predicted, 3, 4).tolist() == expected.tolist()
    assert not confusion_of(labels[:0], predicted[:0], 3, 4).any()


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([[0, 3]], [[0, 0]], "labels: expected 0 to 2, found 0 to 3"),
        ([[0, 1]], [[0, 4]], "predicted: expected 0 to 3, found 0 to 4"),
        ([[0, 1]], [[-1, 0]], "found -1 to 0"),
        ([[0, 1]], [[0]], "do not compare"),
    ],
)
def test_confusion_refuses(labels, predicted, message):
    with pytest.raises(InputError, match=message):
        confusion_of(np.array(labels), np.array(predicted), 3, 4)


def test_score_equals_a_plain_loop_over_pixels():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, (2, 30, 40))
    labels[predicted == 3] = 3
    predicted[labels == 2] = 1  # class 2 is never right
    score = semantic_score(confusion_of(labels, predicted, 6, 6))
    pairs = list(zip(labels.flat, predicted.flat, strict=True))
    ious, accuracies = [], []
    for label in range(6):
        both = sum(truth == found == label for truth, found in pairs)
        either = sum(label in pair for pair in pairs)
        truths = sum(truth == label for truth, _ in pairs)
        ious.append(both / either if either else math.nan)
        accuracies.append(both / truths if truths else math.nan)
    np.testing.assert_allclose(score.iou, ious, atol=1e-15)
    np.testing.assert_allclose(score.accuracy, accuracies, atol=1e-15)
    assert math.isnan(score.iou[5])
    assert score.mean_iou == pytest.approx(np.nanmean(ious))
    assert score.mean_accuracy == pytest.approx(np.nanmean(accuracies))
    assert score.pixel_accuracy == pytest.approx(np.mean(labels == predicted))


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (5, 3), (3, 5)])
def test_matching_is_the_best_of_all_assignments(clusters, classes):
    rng = np.random.default_rng(clusters)
    confusion = rng.integers(0, 50, (clusters, classes))
    score = semantic_score(match_clusters(confusion))
    union = confusion.sum(1)[:, None] + confusion.sum(0) - confusion
    ious = confusion / union
    choices = itertools.permutations(range(max(clusters, classes)), classes)
    best = max(
        sum(ious[cluster, label] for label, cluster in enumerate(choice) if cluster < clusters)
        for choice in choices
    )
    assert score.iou.sum() == pytest.approx(best, abs=1e-12)
    assert match_clusters(confusion).sum() == confusion.sum()  # unmatched pixels count as wrong


def test_clusters_in_another_order_are_perfect():
    matched = match_clusters(np.array([[0, 7, 0], [0, 0, 3], [5, 0, 0]]))
    assert matched.tolist() == [[5, 0, 0], [0, 7, 0], [0, 0, 3], [0, 0, 0]]
    assert semantic_score(matched).mean_iou == 1


def test_a_class_without_pixels_takes_no_part():
    score = semantic_score(match_clusters(np.array([[4, 0], [2, 0]])))
    assert score.iou[0] == pytest.approx(4 / 6)
    assert math.isnan(score.iou[1])
    assert (score.mean_iou, score.pixel_accuracy) == (pytest.approx(4 / 6), pytest.approx(4 / 6))


def test_scores_of_nothing_are_errors():
    with pytest.raises(InputError, match="0 pixels"):
        semantic_score(np.zeros((3, 3), int))
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        semantic_score(np.ones((2, 3), int))
    with pytest.raises(InputError, match="counts"):
        match_clusters(np.zeros((0, 3), int))
