"""Tables of pictures, and scores by class."""

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.visualization import class_scores_figure, comparison_figure


def test_comparison_shows_every_picture_with_its_caption():
    row = [np.full((20, 30, 3), grey, np.uint8) for grey in (10, 20)]
    figure = comparison_figure([row, row[::-1]], ["truth", "found"], [["a", "b"], ["c", "d"]])
    shown = [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes]
    assert shown == [10, 20, 20, 10]
    texts = {text.get_text() for text in figure.texts}
    titles = {axes.get_title() for axes in figure.axes[:2]}
    assert texts | titles == {"a", "b", "c", "d", "truth", "found"}


def test_a_caption_does_not_run_into_its_neighbour():
    figure = comparison_figure([[np.zeros((2, 2, 3), np.uint8)]], ["t"], [["word " * 20]])
    caption = figure.texts[0].get_text()
    assert len(caption) <= 32
    assert caption.endswith("word ...")


@pytest.mark.parametrize(
    ("rows", "titles", "captions"),
    [
        ([], ["truth"], []),
        ([[np.zeros((2, 2, 3), np.uint8)]], ["truth", "found"], [["a"]]),
        ([[np.zeros((2, 2, 3), np.uint8)]], ["truth"], []),
    ],
)
def test_comparison_refuses(rows, titles, captions):
    with pytest.raises(InputError, match="as many images and captions"):
        comparison_figure(rows, titles, captions)


def test_class_scores_are_drawn_in_order_without_undefined_classes():
    scores = {"IoU": np.array([0.2, np.nan, 0.6]), "accuracy": np.array([0.5, np.nan, 0.1])}
    figure = class_scores_figure(["a", "b", "c"], scores, "%", {"IoU": 0.4, "accuracy": 0.3})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c"]
    drawn = [points.get_offsets()[:, 0].tolist() for points in axes.collections]
    np.testing.assert_allclose(drawn, [[20, 60], [50, 10]])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"IoU (mean 40.0)", "accuracy (mean 30.0)"}


@pytest.mark.parametrize(
    ("scores", "means", "message"),
    [
        ({}, {}, "1 to 4 methods"),
        ({"IoU": np.zeros(2)}, {}, "each with a mean"),
        ({"IoU": np.zeros(3)}, {"IoU": 0.0}, r"expected \(2,\) scores, found \(3,\)"),
        ({"IoU": np.full(2, np.nan)}, {"IoU": 0.0}, "a class with a score, found none"),
    ],
)
def test_class_scores_refuse(scores, means, message):
    with pytest.raises(InputError, match=message):
        class_scores_figure(["a", "b"], scores, "%", means)
