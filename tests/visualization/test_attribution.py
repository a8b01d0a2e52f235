"""The figure of what speaks for a class."""

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.visualization import attribution_figure

RGB = np.full((16, 16, 3), 100, np.uint8)


def test_every_picture_stands_beside_its_maps():
    heat = np.zeros((4, 4))
    heat[1, 2] = 1
    signed = np.zeros((16, 16))
    signed[3, 4], signed[9, 9] = 5, -5
    maps = {"heat": [heat, heat], "signed": [signed, signed]}
    figure = attribution_figure([RGB, RGB], maps, ["first", "second"])
    panels = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert len(panels) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "heat", "signed"]
    assert [text.get_text() for text in figure.texts] == [
        "first",
        "second",
        "purple: for the class, orange: against it",
    ]
    np.testing.assert_array_equal(panels[0], RGB)
    brightest = panels[1].sum(axis=2)
    assert brightest[5, 9] > brightest[13, 2]
    assert panels[2][3, 4, 2] > panels[2][3, 4, 0]  # for: purple
    assert panels[2][9, 9, 0] > panels[2][9, 9, 2]  # against: orange


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_map_can_be_drawn(value):
    assert attribution_figure([RGB], {"heat": [np.full((4, 4), value)]}, [""]).axes


@pytest.mark.parametrize(
    ("pictures", "maps", "names"),
    [
        ([], {"heat": []}, []),
        ([RGB], {}, ["a"]),
        ([RGB], {"heat": []}, ["a"]),
        ([RGB], {"heat": [np.zeros((4, 4))]}, []),
    ],
)
def test_what_does_not_agree_is_refused(pictures, maps, names):
    with pytest.raises(InputError, match="expected images, with a name and one map of each kind"):
        attribution_figure(pictures, maps, names)


def test_images_keep_their_own_proportions():
    wide, high = np.zeros((30, 60, 3), np.uint8), np.zeros((60, 50, 3), np.uint8)
    maps = {"heat": [np.ones((30, 60)), np.ones((60, 50))]}
    figure = attribution_figure([wide, high], maps, ["a", "b"], "a model")
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    for axes, hw in zip(figure.axes, [(30, 60)] * 2 + [(60, 50)] * 2, strict=True):
        box = axes.get_position()
        shape = box.width * width / (box.height * height)
        assert shape == pytest.approx(hw[1] / hw[0], rel=1e-3)
    assert "a model" in [text.get_text() for text in figure.texts]
