import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.visualization import reconstruction_figure
from crate_interp.visualization.reconstruction import HIDDEN


def arrays(count, size=8):
    rng = np.random.default_rng(0)
    originals = list(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    predictions = list(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    return originals, list(rng.random((count, size, size)) < 0.75), predictions


def panels(figure):
    """Pictures by (kind, number of the picture): rows of three, picture after picture."""
    kinds = ("original", "hidden", "reconstruction")
    found = {}
    for number, axes in enumerate(figure.axes):
        found[kinds[number % 3], number // 3] = axes.images[0].get_array()
    return found


@pytest.mark.parametrize("count", [1, 4, 5])
def test_prediction_stands_in_hidden_places_only(count):
    originals, _, predictions = arrays(count)
    hidden = [np.arange(64).reshape(8, 8) % 4 > 0] * count  # 75 %
    found = panels(reconstruction_figure(originals, hidden, predictions, "a note"))
    assert len(found) == 3 * count
    for number in range(count):
        for row, column in np.ndindex(8, 8):
            seen = not hidden[number][row, column]
            rgb = originals[number][row, column]
            assert (found["original", number][row, column] == rgb).all()
            masked = rgb if seen else np.full(3, round(255 * HIDDEN))
            assert (found["hidden", number][row, column] == masked).all()
            pasted = rgb if seen else predictions[number][row, column]
            assert (found["reconstruction", number][row, column] == pasted).all()


def test_columns_are_named_once_a_group_and_nothing_overlaps():
    figure = reconstruction_figure(*arrays(6), "a note")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles.count("original") == titles.count("reconstruction") == 2
    boxes = [axes.get_position() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1
        for other in boxes[:number]:
            apart = box.x0 >= other.x1 or other.x0 >= box.x1
            assert apart or box.y0 >= other.y1 or other.y0 >= box.y1
    assert [text.get_text() for text in figure.texts] == ["a note"]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_refuses_no_picture_and_parts_that_do_not_fit(missing):
    with pytest.raises(InputError, match="expected images"):
        reconstruction_figure([], [], [])
    lists = list(arrays(2))
    lists[missing] = lists[missing][:1]
    with pytest.raises(InputError, match="expected images, and a mask and a prediction"):
        reconstruction_figure(*lists)
    lists = list(arrays(1))
    lists[missing] = arrays(1, 4)[missing]
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        reconstruction_figure(*lists)
