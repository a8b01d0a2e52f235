"""Attention on pictures, and the figures made of it."""

import numpy as np
import pytest
from matplotlib import colormaps

from crate_interp import InputError
from crate_interp.visualization import (
    attention_curves,
    draw_attention,
    draw_heat,
    draw_kept,
    head_figure,
    layer_figure,
    maps_figure,
)


def drawn(heads=2, height=6, width=9, seed=0):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.random((heads, height, width)), rng.random((heads, height, width)) > 0.5


def images_of(figure):
    """Images column by column."""
    by_column = sorted(figure.axes, key=lambda axes: int(axes.get_label().split()[-1]))
    return [axes.images[0].get_array() for axes in by_column]


def texts_of(figure):
    """Names of rows, then titles of columns, then the note."""
    names = [text.get_text() for text in figure.texts]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    return [*names, *titles]


def test_heat_grows_to_the_99th_percentile():
    attention = np.arange(200.0).reshape(10, 20)
    heat = draw_heat(attention)
    top = np.quantile(attention, 0.99)
    for place in np.ndindex(attention.shape):
        expected = 255 * np.array(colormaps["inferno"](min(attention[place] / top, 1.0))[:3])
        assert np.abs(heat[place] - expected).max() <= 0.51
    assert (heat[0, 0] <= 4).all()
    one = np.zeros((20, 20))
    one[3, 4] = 1e-9  # less than one in a hundred: its largest value
    assert (draw_heat(one)[3, 4] > 150).all()
    assert (draw_heat(np.zeros((3, 3))) <= 4).all()


def test_overlay_shows_the_picture_where_there_is_no_attention():
    rgb, _, _ = drawn()
    attention = np.zeros(rgb.shape[:2])
    attention[2, 3] = 1
    found = draw_attention(rgb, attention)
    grey = np.repeat(0.75 * rgb.mean(axis=2, keepdims=True), 3, axis=2)
    away = attention == 0
    assert np.abs(found[away] - grey[away]).max() <= 0.51
    expected = 0.1 * grey[2, 3] + 0.9 * 255 * np.array(colormaps["inferno"](1.0)[:3])
    assert np.abs(found[2, 3] - expected).max() <= 0.51


def test_kept_part_is_the_picture_itself():
    rgb, _, masks = drawn()
    found = draw_kept(rgb, masks[0])
    assert (found[masks[0]] == rgb[masks[0]]).all()
    assert (found[~masks[0]] >= 216).all()


@pytest.mark.parametrize("draw", [draw_attention, draw_kept])
def test_another_size_is_refused(draw):
    with pytest.raises(InputError, match=r"of \(2, 2\) on an image of \(6, 9\)"):
        draw(drawn()[0], np.zeros((2, 2), dtype=bool))


@pytest.mark.parametrize("wrong", [-0.5, np.nan, np.inf])
def test_attention_that_cannot_be_is_refused(wrong):
    rgb, maps, _ = drawn()
    maps[0, 1, 1] = wrong
    for draw in (draw_heat, lambda attention: draw_attention(rgb, attention)):
        with pytest.raises(InputError, match="finite numbers of at least 0"):
            draw(maps[0])


def test_head_figure_has_map_mask_and_outline_of_each_head():
    rgb, maps, masks = drawn(3)
    names = ["head 0", "head 1", "head 2"]
    named = dict(zip(names, maps, strict=True))
    figure = head_figure(rgb, named, masks, "60% of the mass", "a note", (2.0, 3.0))
    found = images_of(figure)
    assert len(found) == 10
    assert (found[0] == rgb).all()  # clean, before all heads
    for head in range(3):
        assert (found[3 * head + 1] == draw_heat(maps[head])).all()
        assert (found[3 * head + 2] == draw_kept(rgb, masks[head])).all()
        assert (found[3 * head + 3] == rgb).all()
    assert (
        sum(len(axes.lines) for axes in figure.axes) == 7
    )  # the query, on the clean image, maps and outlines
    assert {"image", *names, "attention", "60% of the mass", "outline", "a note"} == {
        *texts_of(figure)
    }
    with pytest.raises(InputError, match="a map and a mask for each head, found 3 and 2"):
        head_figure(rgb, named, masks[:2], "")
    with pytest.raises(InputError, match="a map and a mask for each head, found 0 and 0"):
        head_figure(rgb, {}, masks[:0], "")


def test_maps_figure_has_images_across_and_maps_down():
    first, second = drawn(2), drawn(2, 6, 4, seed=1)
    pictures, maps = [first[0], second[0]], [first[1], second[1]]
    figure = maps_figure(pictures, maps, ["a", "b"], ["head 3", "head 0"])
    found = images_of(figure)
    assert len(found) == 6
    for column in range(2):
        assert (found[3 * column] == pictures[column]).all()
        for row in range(2):
            expected = draw_attention(pictures[column], maps[column][row])
            assert (found[3 * column + 1 + row] == expected).all()
    assert texts_of(figure) == ["image", "head 3", "head 0", "a", "b"]
    with pytest.raises(InputError, match=r"expected 1 maps .* found \[2, 2\] maps"):
        maps_figure(pictures, maps, ["a", "b"], ["head 3"])
    with pytest.raises(InputError, match="expected columns"):
        maps_figure([], [], [], ["head 3"])


def test_layer_figure_has_blocks_down_and_heads_across():
    rgb, maps, _ = drawn(6)
    blocks = maps.reshape(3, 2, *maps.shape[1:])
    figure = layer_figure(rgb, list(blocks), ["head 0", "head 1"])
    found = images_of(figure)
    assert (found[0] == rgb).all()
    for head in range(2):
        for block in range(3):
            assert (found[1 + 3 * head + block] == draw_heat(blocks[block, head])).all()
    assert texts_of(figure)[:3] == ["block 0", "block 1", "block 2"]
    with pytest.raises(InputError, match=r"expected 2 maps in each block, found \[2, 1\]"):
        layer_figure(rgb, [blocks[0], blocks[1, :1]], ["head 0", "head 1"])
    with pytest.raises(InputError, match=r"found \[\]"):
        layer_figure(rgb, [], ["head 0"])


def test_curves_show_heads_their_mean_and_what_uniform_attention_has():
    rng = np.random.default_rng(0)
    distance, entropy = rng.random((2, 5, 4, 3))
    rollout = rng.random((5, 4))
    figure = attention_curves(distance, entropy, rollout, (0.9, 0.8, 0.7), "a note")
    assert len(figure.axes) == 3
    for axes, values, level in zip(figure.axes, (distance, entropy), (0.9, 0.8), strict=False):
        uniform, mean, heads = (line.get_ydata() for line in axes.lines)
        np.testing.assert_allclose(uniform, level)
        np.testing.assert_allclose(mean, values.mean(axis=(0, 2)))
        np.testing.assert_allclose(heads, values.mean(axis=0).ravel())
    np.testing.assert_allclose(figure.axes[2].lines[1].get_ydata(), rollout.mean(axis=0))
    for wrong in ((distance[:0], entropy[:0], rollout[:0]), (distance, entropy, rollout[:, :2])):
        with pytest.raises(InputError, match=r"expected distance and entropy \(I, L, K\)"):
            attention_curves(*wrong, (1, 1, 1))
