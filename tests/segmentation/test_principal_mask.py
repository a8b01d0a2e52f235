"""The principal-component mask against scikit-learn's PCA."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from crate_interp.errors import InputError
from crate_interp.segmentation import principal_component


def features_of(dimensions, grid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dimensions, grid[0] * grid[1], generator=generator)


@pytest.mark.parametrize(("dimensions", "grid"), [(4, (6, 5)), (50, (4, 5))])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_learn(dimensions, grid, seed):
    features = features_of(dimensions, grid, seed)
    found = principal_component(features, grid)
    expected = PCA(1, svd_solver="full").fit_transform(features.T.double().numpy())[:, 0]
    sign = np.sign(expected @ found.scores.flatten().numpy())
    np.testing.assert_allclose(found.scores.flatten(), sign * expected, atol=1e-9)
    np.testing.assert_array_equal(found.mask, found.scores > 0)
    corners = found.mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    strongest = found.scores.abs().argmax()
    assert found.mask.flatten()[strongest] or not corners.all()


def test_the_objects_side_is_found_whatever_the_sign():
    grid, features = (6, 7), torch.zeros(3, 42)
    square = torch.zeros(grid, dtype=torch.bool)
    square[2:4, 2:5] = True
    features[0, square.flatten()] = 5.0
    features += 0.01 * features_of(3, grid)
    for flipped in (features, -features, features + 100):
        found = principal_component(flipped, grid)
        assert found.mask.equal(square)
        assert (found.scores[square] > 0).all()


def test_a_foreground_with_the_corners_is_the_background():
    grid, features = (6, 7), torch.zeros(1, 42)
    border = torch.ones(grid, dtype=torch.bool)
    border[1:, 1:6] = False
    features[0, border.flatten()] = 1.0  # fewer patches, so farther from the mean
    found = principal_component(features, grid)
    assert found.mask.equal(~border)


def test_equal_features_have_an_empty_mask():
    for value in (0.0, 0.1, 3.0):
        found = principal_component(torch.full((4, 6), value), (2, 3))
        assert not found.mask.any()
        assert not found.scores.any()


@pytest.mark.parametrize(
    ("features", "grid", "message"),
    [
        (torch.ones(3, 6), (2, 4), "2 x 4 patches need"),
        (torch.full((3, 6), torch.nan), (2, 3), "expected finite numbers"),
        (torch.ones(3, 0), (0, 3), "0 x 3 patches"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, grid, message):
    with pytest.raises(InputError, match=message):
        principal_component(features, grid)
