import numpy as np
import pytest

from crate_interp import InputError, Instances
from crate_interp.visualization import draw_instances, overlay_sheet
from crate_interp.visualization.overlay import PALETTE


def test_draw_instances_tints_the_inside_of_a_mask_in_its_colour():
    rgb = np.full((60, 80, 3), 100, dtype=np.uint8)
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 5:25, 5:25] = True
    masks[1, 30:55, 40:75] = True
    drawn = draw_instances(rgb, Instances(masks))
    assert drawn.shape == rgb.shape
    np.testing.assert_array_equal(drawn[15, 15], np.round(50 + 0.5 * PALETTE[0]))
    np.testing.assert_array_equal(drawn[42, 55], np.round(50 + 0.5 * PALETTE[1]))
    assert (rgb == 100).all()


def test_draw_instances_may_leave_outlines_out():
    rgb, mask = np.full((20, 20, 3), 100, dtype=np.uint8), np.zeros((1, 20, 20), dtype=bool)
    mask[0, 10, 10] = True
    drawn = draw_instances(rgb, Instances(mask), outline=False)
    assert (drawn != drawn[0, 0]).any(axis=2).sum() == 1


def test_draw_instances_without_masks_only_fades():
    rgb = np.full((20, 20, 3), 100, dtype=np.uint8)
    drawn = draw_instances(rgb, Instances(np.zeros((0, 20, 20), dtype=bool)))
    assert np.ptp(drawn) == 0


def test_draw_instances_refuses_masks_of_another_size():
    with pytest.raises(InputError, match=r"\(3, 4\) on a picture of \(20, 20\)"):
        draw_instances(np.zeros((20, 20, 3), np.uint8), Instances(np.zeros((0, 3, 4), bool)))


def test_overlay_sheet_shows_every_picture_with_its_caption():
    pictures = [np.zeros((20, 30, 3), np.uint8)] * 5
    figure = overlay_sheet(pictures, list("abcde"), "title")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles == list("abcde")


@pytest.mark.parametrize(
    ("pictures", "captions"), [([], []), ([np.zeros((2, 2, 3), np.uint8)], [])]
)
def test_overlay_sheet_refuses(pictures, captions):
    with pytest.raises(InputError, match="one caption a picture"):
        overlay_sheet(pictures, captions, "title")
