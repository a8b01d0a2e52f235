"""Segmentations of COCO entries: what may lie outside a picture, and what would take all memory."""

import numpy as np
import pytest

from crate_interp.data import encode_masks
from crate_interp.data.coco_masks import check_outlines, check_segmentation, draw_segmentation
from crate_interp.errors import InputError

TRIANGLE = [0, 0, 4, 0, 4, 4]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "found an empty list"),
        ([[]], "found 0 numbers"),
        ([TRIANGLE, [1, 2, 3, 4]], "three points or more, x and y of each, found 4 numbers"),
        ([[*TRIANGLE, 1]], "found 7 numbers"),
        (["zigzag"], "found 'zigzag'"),
        ([[*TRIANGLE, 1, None]], "finite numbers"),
        ([[*TRIANGLE, 1, float("nan")]], "finite numbers"),
        ([[*TRIANGLE, float("inf"), float("-inf")]], "finite numbers"),
        ([[*TRIANGLE, 1, 10**400]], "finite numbers"),
        ([[1e308] * 6], "finite numbers"),
        ([[0, 0, 1e9, 0, 4, 4]], r"x from -8 to 16, in or near an image of 8 x 6 .* found 10*\.?"),
        ([[0, 0, 4, 0, 4, -8.5]], r"y from -8 to 14, .* found -8\.5"),
        ({"size": [8, 6], "counts": "0"}, r"counts: expected runs of 8 x 6"),
        (encode_masks(np.ones((1, 8, 6), bool))[0], r"expected size \[6, 8\], found \[8, 6\]"),
        (None, "expected an RLE of size and counts, found NoneType"),
    ],
)
def test_segmentation_that_is_no_mask_of_the_picture_is_refused(segmentation, message):
    with pytest.raises(InputError, match=message):
        check_segmentation(segmentation, (6, 8))


def test_polygons_may_leave_the_picture_by_its_longer_side():
    expected = np.zeros((6, 8), bool)
    expected[2:] = True
    outside = [[-8, 2, 16, 2, 16, 14, -8, 14]]
    check_segmentation(outside, (6, 8))
    assert (draw_segmentation(outside, (6, 8)) == expected).all()
    (rle,) = encode_masks(expected[None])
    assert check_segmentation(rle, (6, 8)) == 0
    assert (draw_segmentation(rle, (6, 8)) == expected).all()


def test_long_outlines_are_refused_before_they_are_drawn():
    side = 20_000
    zigzag = [0, 0, side, side] * 101
    with pytest.raises(InputError, match="outlines of at most 4000000 pixels, found 40"):
        check_segmentation([zigzag], (side, side))
    square = [0, 0, side, 0, side, side, 0, side]
    bound = check_segmentation([square], (side, side))
    assert bound == 4 * side
    check_outlines([[square]] * 640, 640 * bound, "truth.json")
    with pytest.raises(
        InputError, match=r"truth\.json: expected polygons with outlines of at most"
    ):
        check_outlines([[square]] * 700, 700 * bound, "truth.json")
    check_outlines([[TRIANGLE]] * 9, 1e9, "truth.json")  # the bound may be far above the length
