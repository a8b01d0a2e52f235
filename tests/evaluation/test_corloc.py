"""CorLoc against IoUs worked out by hand."""

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.evaluation import CorLocScore, corloc_hit, corloc_score

TRUTH = np.array([[50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 10.0]])


@pytest.mark.parametrize(
    ("box", "hit"),
    [
        ([0, 0, 10, 10], True),
        ([0, 0, 10, 5], True),  # IoU 0.5 exactly
        ([0, 0, 10, 4.999], False),
        ([0, 0, 20, 10], True),  # 0.5 again
        ([0, 0, 20, 10.001], False),
        ([50, 51, 60, 61], True),  # 90 / 110, with the other object
        ([10, 0, 20, 10], False),  # touches only
        ([3, 3, 3, 3], False),
        (None, False),
    ],
)
def test_corloc_hits_from_one_half_on(box, hit):
    found = corloc_hit(None if box is None else np.array(box, float), TRUTH)
    assert corloc_score([found]) == CorLocScore(corloc=float(hit), images=1)


def test_corloc_is_the_share_of_images_with_objects():
    hits = [corloc_hit(box, TRUTH) for box in (TRUTH[0], TRUTH[1], None)]
    hits.append(corloc_hit(TRUTH[0], np.zeros((0, 4))))
    assert corloc_score(hits) == CorLocScore(corloc=2 / 3, images=3)


def test_corloc_of_nothing_is_refused():
    with pytest.raises(InputError, match="found none"):
        corloc_score([])
    with pytest.raises(InputError, match="found none"):
        corloc_score([corloc_hit(TRUTH[0], np.zeros((0, 4)))])


@pytest.mark.parametrize(
    ("box", "truth"),
    [
        (np.zeros(3), TRUTH),
        (np.zeros((1, 4)), TRUTH),
        (np.array([5.0, 0, 4, 9]), TRUTH),
        (np.array([np.nan, 0, 4, 9]), TRUTH),
        (TRUTH[0], np.zeros((2, 3))),
        (TRUTH[0], TRUTH[:, [2, 3, 0, 1]]),
    ],
)
def test_corloc_refuses_what_is_no_box(box, truth):
    with pytest.raises(InputError, match="expected"):
        corloc_hit(box, truth)
