"""Where the maps of `pca_figure` stand, and that they are what was given."""

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.visualization import pca_figure


def drawn(sizes, grid=(4, 5)):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*hw, 3), np.uint8) for hw in sizes]
    grey = rng.random((len(sizes), *grid))
    rgb = rng.integers(0, 256, (len(sizes), *grid, 3), np.uint8)
    return pictures, grey, grey > 0.5, rgb


def shown(figure, label):
    axes = next(axes for axes in figure.axes if axes.get_label() == label)
    return np.asarray(axes.images[0].get_array())


def test_each_image_has_its_four_maps():
    pictures, grey, foreground, rgb = drawn([(20, 30), (40, 25)])
    figure = pca_figure(pictures, grey, foreground, rgb, "a note")
    assert len(figure.axes) == 8
    for number in range(2):
        np.testing.assert_array_equal(shown(figure, f"image {number}"), pictures[number])
        np.testing.assert_array_equal(shown(figure, f"component 1 {number}"), grey[number])
        np.testing.assert_array_equal(shown(figure, f"colours {number}"), rgb[number])
    cut_out = shown(figure, "foreground 0")
    for row in range(20):
        for column in range(30):
            kept = foreground[0, row * 4 // 20, column * 5 // 30]
            assert (cut_out[row, column] == (pictures[0][row, column] if kept else 230)).all()
    assert any(text.get_text() == "a note" for text in figure.texts)


def test_without_a_foreground_there_are_three():
    pictures, grey, _, rgb = drawn([(20, 30)])
    figure = pca_figure(pictures, grey, None, rgb)
    labels = [axes.get_label() for axes in figure.axes]
    assert labels == ["image 0", "component 1 0", "colours 0"]


def test_maps_neither_overlap_nor_leave_the_page_nor_lose_proportions():
    sizes = [(20, 30), (40, 25), (30, 30), (10, 90)] * 5
    pictures, grey, foreground, rgb = drawn(sizes)
    figure = pca_figure(pictures, grey, foreground, rgb, "note " * 60)
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= 1
        assert box.y1 <= 1
        assert not any(
            min(box.x1, other.x1) > max(box.x0, other.x0) + 1e-9
            and min(box.y1, other.y1) > max(box.y0, other.y0) + 1e-9
            for other in boxes[:number]
        )
    for axes, box in zip(figure.axes, boxes, strict=True):
        hw = sizes[int(axes.get_label().split()[-1])]
        assert box.width * width / (box.height * height) == pytest.approx(hw[1] / hw[0])


def test_pca_figure_refuses_what_does_not_belong_together():
    pictures, grey, foreground, rgb = drawn([(20, 30), (40, 25)])
    with pytest.raises(InputError, match="found 2 and 1 and 2 and 2"):
        pca_figure(pictures, grey[:1], foreground, rgb)
    with pytest.raises(InputError, match="found 0 and 0 and 0 and 0"):
        pca_figure([], grey[:0], foreground[:0], rgb[:0])
