"""Joint PCA against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA

from crate_interp.analysis import component_maps, joint_pca
from crate_interp.errors import InputError
from crate_interp.segmentation import principal_components

GRID = (6, 7)


def drawn(count=60, dim=12, seed=0):
    """Features of different variance along each dimension, far from the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) * np.linspace(3, 1, dim) + 1000


def pictures(seed=0, images=3, dim=8):
    """Features of images with an object of two parts in the middle, and where these are."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((images, *GRID), int)
    for image in parts:
        image[2:4, 2:4], image[2:4, 4:6] = 1, 2
    centres = 5 * rng.normal(size=(3, dim))
    return centres[parts] + 0.1 * rng.normal(size=(images, *GRID, dim)), parts


def plain_joint_pca(features, threshold):
    """Grey, threshold, mask and components by scikit-learn, one image and one value at a time."""
    tokens = features.reshape(-1, features.shape[-1])
    first = PCA(1, svd_solver="full").fit_transform(tokens)[:, 0].reshape(features.shape[:-1])
    border = [
        image[row, column]
        for image in first
        for row in range(GRID[0])
        for column in range(GRID[1])
        if row in (0, GRID[0] - 1) or column in (0, GRID[1] - 1)
    ]
    first = first * -np.sign(np.mean(border))
    low, high = np.percentile(first, 1), np.percentile(first, 99)
    grey = np.clip((first - low) / (high - low), 0, 1)
    if threshold == "auto":
        best = -1.0
        values = sorted(set(grey.ravel()))
        for lower, upper in pairwise(values):
            below, above = grey[grey <= lower], grey[grey >= upper]
            between = len(below) * len(above) * (above.mean() - below.mean()) ** 2
            if between > best:
                best, threshold = between, (lower + upper) / 2
    mask = grey > threshold
    parts = PCA(3, svd_solver="full").fit(features[mask])
    components = np.zeros((*features.shape[:-1], 3))
    for direction, channel in zip(parts.components_, range(3), strict=True):
        sign = np.sign(direction[np.abs(direction).argmax()])
        components[mask, channel] = sign * (features[mask] - parts.mean_) @ direction
    return grey, threshold, mask, components


@pytest.mark.parametrize("threshold", ["auto", 0.35])
def test_joint_pca_equals_plain_loops(threshold):
    features, parts = pictures()
    grey, expected_threshold, mask, components = plain_joint_pca(features, threshold)
    found = joint_pca(list(features.reshape(3, 42, 8)), GRID, threshold)
    np.testing.assert_allclose(found.grey, grey, atol=1e-5)
    assert found.threshold == pytest.approx(expected_threshold, abs=1e-5)
    np.testing.assert_array_equal(found.foreground, mask)
    np.testing.assert_allclose(found.components, components, atol=1e-5)
    assert found.grey.shape == (3, *GRID)
    for channel in range(3):
        values = components[mask][:, channel]
        low, high = np.percentile(values, 1), np.percentile(values, 99)
        expected = np.clip((values - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(found.rgb[mask][:, channel], expected, atol=0.51)
    assert not found.rgb[~mask].any()
    if threshold == "auto":
        np.testing.assert_array_equal(found.foreground, parts > 0)


def test_parts_of_objects_have_one_colour_in_all_images():
    features, parts = pictures(seed=3, images=4)
    found = joint_pca(features.reshape(4, 42, 8), GRID)
    red = found.rgb[..., 0].astype(int)
    first, second = red[parts == 1], red[parts == 2]
    assert abs(first.mean() - second.mean()) > 150
    assert max(np.ptp(first), np.ptp(second)) < 40
    assert found.shares[0] > 0.9


def test_joint_pca_is_the_same_for_mirrored_features():
    features, _ = pictures()
    found = joint_pca(features.reshape(3, 42, 8), GRID)
    negative = joint_pca(-features.reshape(3, 42, 8), GRID)
    np.testing.assert_array_equal(found.foreground, negative.foreground)
    np.testing.assert_allclose(found.grey, negative.grey, atol=1e-6)


def test_joint_pca_without_foreground_colours_every_patch():
    features, _ = pictures()
    found = joint_pca(features.reshape(3, 42, 8), GRID, "none")
    assert found.threshold is None
    assert found.foreground.all()
    expected = principal_components([features.reshape(-1, 8)])
    projected = expected.project(features.reshape(-1, 8)).reshape(3, *GRID, 3)
    projected[..., 0] *= -np.sign(projected[:, 0, :, 0].mean())  # the first row is background
    np.testing.assert_allclose(found.components, projected, atol=1e-5)
    np.testing.assert_allclose(found.rgb[..., 0] / 255, found.grey, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(found.shares, expected.shares, rtol=1e-9)
    assert found.first_share == pytest.approx(expected.shares[0])


@pytest.mark.parametrize(
    ("features", "foreground", "message"),
    [
        ([], "auto", "found 0 of 0"),
        (iter([drawn(42)]), "auto", "several times, found an iterator"),
        ([drawn(42), drawn(41)], "auto", "image 1: expected 42 features, found 41"),
        ([drawn(42)], 1.0, "expected auto, none or 0 <= T < 1, found 1.0"),
        ([drawn(42)], -0.1, "found -0.1"),
        ([drawn(42)], float("nan"), "found nan"),
        ([drawn(42)], "otsu", "found 'otsu'"),
        ([np.eye(42)[:, :5]], 0.9, "patches are above 0.9, too few"),
        ([np.ones((42, 5))], "auto", "42 times the same"),
    ],
)
def test_joint_pca_refuses(features, foreground, message):
    with pytest.raises(InputError, match=message):
        joint_pca(features, GRID, foreground)


def test_component_maps_are_the_first_four_components_of_all_patches():
    features, _ = pictures(seed=3, dim=9)
    flat = features.reshape(len(features), -1, 9)
    grey, rgb = component_maps(flat, GRID)
    expected = PCA(4, svd_solver="full").fit_transform(flat.reshape(-1, 9))
    for number in range(4):
        shown = grey if number == 0 else rgb[..., number - 1]
        low, high = np.percentile(expected[:, number], (1, 99))
        unit = ((expected[:, number] - low) / (high - low)).clip(0, 1)
        turned = np.minimum(
            *(
                np.abs(side - shown.ravel() / (1 if number == 0 else 255)).max()
                for side in (unit, 1 - unit)
            )
        )
        assert turned < (1e-5 if number == 0 else 0.51 / 255)
    border = np.ones(GRID, bool)
    border[1:-1, 1:-1] = False
    assert grey[:, border].mean() < grey.mean()


@pytest.mark.parametrize(
    "features", [np.zeros((0, 42, 8)), np.ones((2, 42, 3)), np.ones((1, 5, 8))]
)
def test_component_maps_refuse_no_image_few_dimensions_and_other_grids(features):
    with pytest.raises(InputError, match="expected"):
        component_maps(features, GRID)
