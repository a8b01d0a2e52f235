"""Panels in the rows and columns of a grid; outlines against a loop over all pairs of pixels."""

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.outline import mask_outline


def picture(height=8, width=8, value=0):
    return np.full((height, width, 3), value, dtype=np.uint8)


def inches(axes, places):
    """Places of axes, in inches from the upper left corner of the page."""
    figure = axes.get_figure()
    axes.apply_aspect()
    shown = axes.transData.transform(np.asarray(places, float)) / figure.dpi
    return np.stack([shown[:, 0], figure.get_size_inches()[1] - shown[:, 1]], axis=1)


def unit_edges(mask):
    """Every edge of length 1 between a pixel of the mask and one outside, as ((x, y), (x, y))."""
    height, width = mask.shape

    def inside(row, column):
        return 0 <= row < height and 0 <= column < width and bool(mask[row, column])

    edges = set()
    for row in range(height + 1):
        for column in range(width + 1):
            if inside(row - 1, column) != inside(row, column):
                edges.add(((column, row), (column + 1, row)))
            if inside(row, column - 1) != inside(row, column):
                edges.add(((column, row), (column, row + 1)))
    return edges


def cut(lines):
    pieces = []
    for (x, y), (to_x, to_y) in lines.astype(int).tolist():
        assert (x == to_x) != (y == to_y)
        for at in range(to_x - x):
            pieces.append(((x + at, y), (x + at + 1, y)))
        for at in range(to_y - y):
            pieces.append(((x, y + at), (x, y + at + 1)))
    return pieces


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 7)])
def test_outline_is_every_edge_once(share, shape):
    mask = np.random.default_rng(1).random(shape) < share
    pieces = cut(mask_outline(mask))
    assert len(pieces) == len(set(pieces))
    assert set(pieces) == unit_edges(mask)


def test_outline_of_a_box_has_four_lines():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:3, 2:6] = True
    found = {tuple(map(tuple, line)) for line in mask_outline(mask)}
    assert found == {
        ((2, 1), (6, 1)),
        ((2, 3), (6, 3)),
        ((2, 1), (2, 3)),
        ((6, 1), (6, 3)),
    }


@pytest.mark.parametrize(("count", "bands"), [(1, 1), (6, 1), (9, 2), (18, 3)])
def test_panels_do_not_overlap_and_stay_inside(count, bands):
    images = [picture(8, 8 + n % 3) for n in range(count)]
    above = [Panel(image, f"c{n}") for n, image in enumerate(images)]
    grid = Grid([above, [Panel(image) for image in images]], ["above", "below"])
    figure = grid.draw(note="a note")
    assert len(figure.axes) == 2 * count
    width, height = figure.get_size_inches()
    boxes = []
    for axes in figure.axes:
        (left, top), (right, bottom) = inches(axes, [(0, 0), axes.images[0].get_extent()[1:3]])
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        rows, across = axes.images[0].get_array().shape[:2]
        assert (right - left) / (bottom - top) == pytest.approx(across / rows)
        boxes.append((left, right, top, bottom))
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            apart = (
                box[0] >= other[1] or other[0] >= box[1] or box[2] >= other[3] or other[2] >= box[3]
            )
            assert apart
    assert len({round(top, 3) for _, _, top, _ in boxes}) == 2 * bands
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("above") == texts.count("below") == bands
    assert "a note" in texts


def test_mask_point_and_empty_place_are_drawn_where_they_belong():
    mask = np.zeros((4, 8), dtype=bool)
    mask[:, :4] = True
    grid = Grid([[Panel(picture(4, 8), mask=mask, point_yx=(2.0, 6.0))], [None]], size=2)
    (axes,) = grid.draw().axes
    assert len(axes.images) == 1
    (left, top), (right, bottom) = inches(axes, [(0, 0), (8, 4)])
    assert (right - left, bottom - top) == pytest.approx((4, 2))
    for lines in axes.collections:
        corners = inches(axes, np.concatenate([path.vertices for path in lines.get_paths()]))
        np.testing.assert_allclose(corners.min(axis=0), (left, top))
        np.testing.assert_allclose(corners.max(axis=0), (left + 2, bottom))
    np.testing.assert_allclose(inches(axes, axes.lines[0].get_xydata()), [[left + 3, top + 1]])


def test_wrong_panels_are_refused():
    with pytest.raises(InputError, match=r"as many panels each, found \[\]"):
        Grid([])
    with pytest.raises(InputError, match=r"found \[1, 2\]"):
        Grid([[Panel(picture())], [Panel(picture())] * 2])
    with pytest.raises(InputError, match=r"a name for each of 1 rows, found \['x', 'y'\]"):
        Grid([[Panel(picture())]], ["x", "y"])
    with pytest.raises(InputError, match=r"mask of its size, found \(8, 8, 3\) and \(4, 4\)"):
        Panel(picture(), mask=np.zeros((4, 4), dtype=bool))
    with pytest.raises(InputError, match="expected an image"):
        Panel(picture(0, 4))
