"""Top-k accuracy against scikit-learn's and a plain loop, ties included."""

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.evaluation import accuracy_score, best_ranks, class_ranks

KS = (1, 2, 5)


def batch(seed, levels, pictures=60, classes=9):
    """Scores of few levels have many ties."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (pictures, classes)).astype(np.float64)
    return scores, rng.integers(0, classes, pictures)


def accuracy_of(scores, labels, ks=KS):
    return accuracy_score(class_ranks(*map(torch.from_numpy, (scores, labels))), ks).accuracy


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_top_k_accuracy_is_that_of_a_plain_loop(levels):
    scores, labels = batch(0, levels)
    for k, found in accuracy_of(scores, labels).items():
        right = 0
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
            order = sorted(range(len(row)), key=lambda number: (-row[number], number))
            right += label in order[:k]
        assert found == right / 60


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_top_k_accuracy_is_scikit_learns(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = batch(1, levels)
    for k, found in accuracy_of(scores, labels).items():
        # scikit-learn lets the higher class number win a tie, so it is given the classes reversed
        expected = metrics.top_k_accuracy_score(
            8 - labels, scores[:, ::-1], k=k, labels=np.arange(9)
        )
        assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_top_1_is_argmax(dtype):
    torch.manual_seed(0)
    scores = torch.randn(200, 50).to(dtype)
    labels = torch.randint(0, 50, (200,))
    labels[::2] = scores.argmax(dim=1)[::2]
    expected = (scores.argmax(dim=1) == labels).double().mean().item()
    found = accuracy_score(class_ranks(scores, labels)).accuracy[1]
    assert found == pytest.approx(expected, abs=1e-15)


def test_batches_count_as_one_set():
    scores, labels = batch(2, 5)
    ranks = []
    for part in (slice(0, 7), slice(7, 7), slice(7, None)):
        ranks += class_ranks(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))
    score = accuracy_score(ranks, KS)
    assert score.accuracy == accuracy_of(scores, labels)
    assert score.pictures == 60


def test_every_class_is_among_the_first_of_as_many():
    scores, labels = batch(3, 1000, classes=4)
    assert accuracy_of(scores, labels, (4, 5)) == {4: 1.0, 5: 1.0}


def test_no_picture_is_refused():
    ranks = class_ranks(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(InputError, match="expected one image or more"):
        accuracy_score(ranks)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.zeros(2, 3), [0], r"expected scores \(B, C\) and labels \(B,\)"),
        (torch.zeros(3), [0, 0, 0], r"expected scores \(B, C\)"),
        (torch.zeros(2, 3), [0, 3], "labels: expected 0 to 2, found 0 to 3"),
        (torch.zeros(2, 3), [-1, 0], "labels: expected 0 to 2, found -1 to 0"),
        (torch.tensor([[0.0, torch.nan]]), [0], "found NaN"),
    ],
)
def test_wrong_batches_are_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        class_ranks(scores, torch.tensor(labels))


@pytest.mark.parametrize("ks", [(), (0,), (1, -5)])
def test_wrong_ks_are_refused(ks):
    with pytest.raises(InputError, match="ks: expected"):
        accuracy_score([0], ks)


def test_any_right_class_counts_as_the_best_of_them():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1], [0.0, 1.0, 2.0]])
    assert best_ranks(scores, [[0, 2], [1], [0, 1, 2]]) == [1, 1, 0]
    single = [[2], [0], [1]]
    assert best_ranks(scores, single) == class_ranks(scores, torch.tensor(single).flatten())
    with pytest.raises(InputError, match="expected one class or more for each image"):
        best_ranks(scores, [[0], [], [1]])
