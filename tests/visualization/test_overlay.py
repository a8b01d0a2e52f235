import numpy as np
import pytest

from crate_interp import InputError, Instances
from crate_interp.visualization import contrasting_colours, draw_instances, overlay_sheet
from crate_interp.visualization.overlay import PALETTE


def test_draw_instances_tints_the_inside_of_a_mask_in_its_colour():
    rgb = np.full((60, 80, 3), 100, dtype=np.uint8)
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 5:25, 5:25] = True
    masks[1, 30:55, 40:75] = True
    drawn = draw_instances(rgb, Instances(masks))
    assert drawn.shape == rgb.shape
    first, second = contrasting_colours(rgb, masks)
    assert (first != second).any()
    np.testing.assert_array_equal(drawn[15, 15], np.round(50 + 0.5 * first))
    np.testing.assert_array_equal(drawn[42, 55], np.round(50 + 0.5 * second))
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
    with pytest.raises(InputError, match=r"\(3, 4\) on an image of \(20, 20\)"):
        draw_instances(np.zeros((20, 20, 3), np.uint8), Instances(np.zeros((0, 3, 4), bool)))


def test_overlay_sheet_shows_every_picture_with_its_caption():
    pictures = [np.zeros((20, 30, 3), np.uint8)] * 5
    figure = overlay_sheet(pictures, list("abcde"), "title")
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == list("abcde")


@pytest.mark.parametrize(
    ("pictures", "captions"), [([], []), ([np.zeros((2, 2, 3), np.uint8)], [])]
)
def test_overlay_sheet_refuses(pictures, captions):
    with pytest.raises(InputError, match="one caption an image"):
        overlay_sheet(pictures, captions, "title")


@pytest.mark.parametrize("number", range(len(PALETTE)))
def test_colour_of_a_mask_is_not_that_of_the_image_under_it(number):
    rgb = np.full((40, 40, 3), 128, np.uint8)
    masks = np.zeros((3, 40, 40), bool)
    masks[0, :20, :20], masks[1, 20:, 20:], masks[2, :5, 30:] = True, True, True
    rgb[:30, :30] = PALETTE[number]
    colours = contrasting_colours(rgb, masks)
    assert np.abs(colours[0].astype(int) - PALETTE[number]).sum() > 150
    assert len({tuple(colour) for colour in colours}) == 3
    np.testing.assert_array_equal(colours, contrasting_colours(rgb, masks))


def test_colours_may_be_given_and_outlines_are_drawn():
    rgb = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10:30, 10:30] = True
    drawn = draw_instances(rgb, Instances(mask), colours=PALETTE[2:3])
    np.testing.assert_array_equal(drawn[20, 20], np.round(50 + 0.5 * PALETTE[2]))
    without = draw_instances(rgb, Instances(mask), outline=False, colours=PALETTE[2:3])
    assert (drawn != without).any(axis=2)[10, 10:30].all()
    assert (drawn == without).all(axis=2)[14:26, 14:26].all()
    with pytest.raises(InputError, match="expected 1 colours, found 2"):
        draw_instances(rgb, Instances(mask), colours=PALETTE[:2])


def test_strips_make_no_difference_to_an_overlay(monkeypatch):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (41, 30, 3), dtype=np.uint8)
    instances = Instances(rng.random((3, 41, 30)) > 0.5)
    whole = draw_instances(rgb, instances)
    monkeypatch.setattr("crate_interp.visualization.overlay._STRIP_PIXELS", 100)
    assert np.array_equal(draw_instances(rgb, instances), whole)
