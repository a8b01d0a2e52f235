"""The figures of what silence changes."""

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.visualization import atom_effects_figure, head_effects_figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_head_has_its_number_at_its_place():
    effects = np.array([[0.5, -1.0, 0.0], [0.25, 0.001, 0.75]])
    axes = head_effects_figure(effects, [3, 7], "drop").axes[0]
    assert texts(axes) == ["0.50", "−1.00", "0", "0.25", "0", "0.75"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "7"]
    image = axes.get_images()[0]
    np.testing.assert_array_equal(image.get_array(), effects)
    assert image.get_clim() == (-1.0, 1.0)
    unsigned = head_effects_figure(np.zeros((1, 2)), [0], "change", signed=False).axes[0]
    assert unsigned.get_images()[0].get_clim() == (0.0, 1.0)


def test_bars_are_means_in_the_order_given_and_25_at_most():
    effects = np.arange(60.0).reshape(2, 30) - 40
    axes = atom_effects_figure(effects, [f"atom {n}" for n in range(30)], "drop").axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, effects.mean(axis=0)[:25])
    assert axes.get_yticklabels()[24].get_text() == "atom 24"


@pytest.mark.parametrize("effects", [np.zeros((0, 0)), np.zeros((2, 3))])
def test_shapes_that_do_not_agree_are_refused(effects):
    with pytest.raises(InputError, match="expected effects of 1 blocks"):
        head_effects_figure(effects, [0], "drop")
    with pytest.raises(InputError, match="expected effects of 1 atoms"):
        atom_effects_figure(effects, ["a"], "drop")
