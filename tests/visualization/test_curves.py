"""Curves: what is drawn is what was given, and smoothing is the weighted mean of the definition."""

import math

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.visualization import Curve, CurvePanel, draw_curves
from crate_interp.visualization.curves import smooth_curve


def curve(run="a", points=5, lines=1):
    x = np.arange(1.0, points + 1)
    return Curve(run, x, np.sin(x[:, None] + np.arange(lines)))


def drawn(figure, panel=0):
    return [line.get_xydata() for line in figure.axes[panel].get_lines()]


def test_draw_curves_draws_the_numbers_that_were_measured():
    given = curve(points=6)
    given.y[2] = np.nan
    figure = draw_curves([CurvePanel("loss", [given])], "updates")
    (line,) = drawn(figure)
    measured = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(line, np.c_[given.x[measured], given.y[measured, 0]])
    assert figure.axes[0].get_title(loc="left") == "loss"
    assert figure.axes[0].get_xlabel() == "updates"


def test_draw_curves_gives_a_run_one_colour_and_one_entry_of_the_legend():
    runs = [f"run {number}" for number in range(9)]
    first = CurvePanel("loss", [curve(run) for run in runs])
    second = CurvePanel("accuracy", [curve(run) for run in runs[::-1][:4]])
    figure = draw_curves([first, second], "updates")
    lines = dict(zip(runs, figure.axes[0].get_lines(), strict=True))
    looks = {run: (line.get_color(), line.get_linestyle()) for run, line in lines.items()}
    assert len(set(looks.values())) == 9
    for run, line in zip(runs[::-1][:4], figure.axes[1].get_lines(), strict=True):
        assert (line.get_color(), line.get_linestyle()) == looks[run]
    (legend,) = figure.legends
    entries = zip(legend.get_texts(), legend.get_lines(), strict=True)
    shown = {text.get_text(): (line.get_color(), line.get_linestyle()) for text, line in entries}
    assert shown == looks


def test_draw_curves_shows_the_raw_numbers_under_smoothed_ones():
    given = curve(points=200)
    raw, smoothed = drawn(draw_curves([CurvePanel("loss", [given], smooth=True)], "updates"))
    np.testing.assert_array_equal(raw[:, 1], given.y[:, 0])
    np.testing.assert_allclose(smoothed[:, 1], smooth_curve(given.y[:, 0], 2.0))
    assert len(drawn(draw_curves([CurvePanel("loss", [curve()], smooth=True)], "updates"))) == 1


def test_draw_curves_shades_blocks_from_pale_to_full():
    figure = draw_curves([CurvePanel("rate", [curve(lines=4)])], "updates")
    opacities = [line.get_alpha() for line in figure.axes[0].get_lines()]
    assert opacities == sorted(opacities)
    assert opacities[-1] == 1
    assert len(set(opacities)) == 4


def test_draw_curves_draws_deviations_as_a_band_where_there_are_any():
    given = curve(points=4)
    half = np.array([[0.1], [0.2], [np.nan], [0.4]])
    figure = draw_curves([CurvePanel("rate", [Curve("a", given.x, given.y, half)])], "block")
    (band,) = figure.axes[0].collections
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    for x, y, deviation in zip(given.x, given.y[:, 0], half[:, 0], strict=True):
        here = corners[corners[:, 0] == x, 1]
        if np.isnan(deviation):
            assert not len(here)
        else:
            assert here.min() == pytest.approx(y - deviation)
            assert here.max() == pytest.approx(y + deviation)
    assert not draw_curves([CurvePanel("rate", [given])], "block").axes[0].collections
    with pytest.raises(InputError, match=r"one deviation a number, \(4, 1\), found \(3, 1\)"):
        Curve("a", given.x, given.y, half[:3])


def test_draw_curves_labels_whole_numbers_only_where_x_has_no_others():
    for x, whole in (([0, 1, 2], True), ([0, 0.5, 1], False)):
        course = Curve("a", np.array(x, float), np.zeros((3, 1)))
        figure = draw_curves([CurvePanel("rate", [course])], "block")
        figure.draw_without_rendering()
        assert all(tick % 1 == 0 for tick in figure.axes[0].get_xticks()) == whole


def test_smooth_curve_is_the_weighted_mean_of_a_plain_loop():
    y, sigma = np.random.default_rng(0).normal(size=40), 2.0
    expected = []
    for here in range(40):
        near = range(max(0, here - 8), min(40, here + 9))  # the filter ends at four deviations
        weights = [math.exp(-((here - other) ** 2) / (2 * sigma**2)) for other in near]
        products = [weight * y[other] for weight, other in zip(weights, near, strict=True)]
        expected.append(sum(products) / sum(weights))
    np.testing.assert_allclose(smooth_curve(y, sigma), expected, rtol=1e-12)


@pytest.mark.parametrize("panels", [[], [CurvePanel("loss", [])]])
def test_draw_curves_refuses_nothing_to_draw(panels):
    with pytest.raises(InputError, match="empty one or none"):
        draw_curves(panels, "updates")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [[1.0]], r"expected x \(P,\) and y \(P, L\)"),
        ([1], [1.0], r"expected x \(P,\) and y \(P, L\)"),
        ([], np.empty((0, 1)), "finite numbers to draw"),
        ([1], [[np.nan]], "finite numbers to draw"),
        ([1, 2], [[1.0], [np.inf]], "finite numbers to draw"),
        ([2, 2], [[1.0], [1.0]], "x to ascend"),
    ],
)
def test_curve_refuses_what_is_no_course(x, y, message):
    with pytest.raises(InputError, match=message):
        Curve("a", np.array(x, np.float64), np.array(y, np.float64))
