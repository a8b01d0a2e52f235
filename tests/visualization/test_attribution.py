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
    assert [axes.get_title() for axes in figure.axes[:3]] == ["picture", "heat", "signed"]
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
        ([RGB, RGB[:8]], {"heat": [np.zeros((4, 4))] * 2}, ["a", "b"]),
    ],
)
def test_what_does_not_agree_is_refused(pictures, maps, names):
    with pytest.raises(InputError, match="expected pictures of one size"):
        attribution_figure(pictures, maps, names)
