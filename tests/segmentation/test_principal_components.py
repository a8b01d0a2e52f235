"""Principal components against scikit-learn's."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from crate_interp.errors import InputError
from crate_interp.segmentation import principal_components


def drawn(count=60, dim=12, seed=0):
    """Features of different variance along each dimension, far from the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) * np.linspace(3, 1, dim) + 1000


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_principal_components_equal_sklearns_up_to_their_sign(count, dtype):
    features = drawn().astype(dtype)
    found = principal_components(np.split(features, [1, 1, 20]), count)
    expected = PCA(count, svd_solver="full").fit(features.astype(np.float64))
    signs = np.sign((found.directions * expected.components_).sum(axis=1))
    np.testing.assert_allclose(found.directions, signs[:, None] * expected.components_, atol=1e-8)
    np.testing.assert_allclose(found.mean, expected.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-8)
    projected = signs * expected.transform(features.astype(np.float64))
    np.testing.assert_allclose(found.project(features), projected, atol=1e-7)
    for direction in found.directions:
        assert direction[np.abs(direction).argmax()] > 0


def test_principal_components_do_not_depend_on_the_order_or_the_chunks():
    features = drawn(100)
    whole = principal_components([features])
    shuffled = np.random.default_rng(1).permutation(features)
    parts = principal_components(shuffled[at : at + 7] for at in range(0, 100, 7))
    np.testing.assert_allclose(whole.directions, parts.directions, atol=1e-9)
    np.testing.assert_allclose(whole.shares, parts.shares, rtol=1e-9)


def test_principal_components_of_features_in_a_plane_have_no_third_share():
    features = np.random.default_rng(0).normal(size=(50, 2)) @ drawn(2, 5)
    found = principal_components([features])
    assert found.shares[:2].sum() == pytest.approx(1)
    assert 0 <= found.shares[2] < 1e-12


@pytest.mark.parametrize(
    ("chunks", "count", "message"),
    [
        ([], 3, "2 features or more of 3 dimensions or more, found 0 of 0"),
        ([np.zeros((0, 5))], 3, "found 0 of 0"),
        ([drawn(1, 5)], 3, "found 1 of 5"),
        ([drawn(9, 2)], 3, "found 9 of 2"),
        ([drawn(9, 5)], 0, "of 0 dimensions"),
        ([drawn(9, 5), drawn(9, 4)], 3, r"expected shape \(n, 5\), found \(9, 4\)"),
        ([np.zeros(5)], 3, r"expected shape \(n, D\), found \(5,\)"),
        ([np.full((9, 5), np.nan)], 3, "finite numbers"),
        ([np.full((9, 5), 0.3)], 3, "found 9 times the same"),
    ],
)
def test_principal_components_refuse(chunks, count, message):
    with pytest.raises(InputError, match=message):
        principal_components(chunks, count)
