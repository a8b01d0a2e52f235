"""Masks, patches and the loss of hidden patches against plain loops."""

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.models.masking import (
    cut_patches,
    draw_mask,
    hidden_patches,
    join_patches,
    patch_statistics,
    reconstruction_errors,
)


def patches_by_loop(image, rows, columns):
    """The patches of an image (C, H, W), each flattened as (row, column, colour)."""
    found = []
    for top in range(0, image.shape[1], rows):
        for left in range(0, image.shape[2], columns):
            patch = [
                float(image[colour, top + row, left + column])
                for row in range(rows)
                for column in range(columns)
                for colour in range(image.shape[0])
            ]
            found.append(patch)
    return np.array(found, dtype=np.float64)


def error_by_loop(predicted, image, mask, patch_size, normalised):
    total, count = 0.0, 0
    for patch, hidden, guess in zip(
        patches_by_loop(image, *patch_size), mask, predicted, strict=True
    ):
        if not hidden:
            continue
        target = patch
        if normalised:
            mean = sum(patch) / len(patch)
            variance = sum((value - mean) ** 2 for value in patch) / (len(patch) - 1)
            target = (patch - mean) / np.sqrt(variance + 1e-6)
        total += sum((g - t) ** 2 for g, t in zip(guess.tolist(), target, strict=True)) / len(patch)
        count += 1
    return total / count


@pytest.mark.parametrize(
    ("patches", "ratio", "count"), [(196, 0.75, 147), (196, 0.6, 118), (10, 0.9, 9), (2, 0.5, 1)]
)
def test_mask_hides_the_ratios_share(patches, ratio, count):
    mask = draw_mask(patches, ratio, torch.Generator().manual_seed(0))
    assert mask.shape == (patches,)
    assert mask.sum() == count == hidden_patches(patches, ratio)


def test_every_patch_is_hidden_as_often():
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([draw_mask(16, 0.75, generator) for _ in range(2000)]).double()
    assert (masks.mean(dim=0) - 0.75).abs().max() < 0.04  # four standard deviations
    pairs = masks.T @ masks / len(masks)
    expected = 12 / 16 * 11 / 15  # of two patches, in a choice of 12 of 16
    assert (pairs - pairs.diag().diag())[0, 1:].sub(expected).abs().max() < 0.05


def test_mask_follows_from_the_generator():
    first, second = (draw_mask(64, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw_mask(64, 0.5, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize(
    ("patches", "ratio"), [(16, 0.0), (16, 1.0), (16, -0.5), (16, 0.01), (16, 0.99), (0, 0.5)]
)
def test_mask_of_all_or_nothing_is_refused(patches, ratio):
    with pytest.raises(InputError, match=rf"mask_ratio: .* {patches} patches .*found {ratio}"):
        draw_mask(patches, ratio)


@pytest.mark.parametrize("patch_size", [(4, 4), (2, 3)])
def test_patches_are_those_of_a_loop_and_join_again(patch_size):
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    patches = cut_patches(images, patch_size)
    for image, found in zip(images, patches, strict=True):
        np.testing.assert_array_equal(found, patches_by_loop(image, *patch_size))
    grid = (8 // patch_size[0], 12 // patch_size[1])
    assert torch.equal(join_patches(patches, patch_size, grid), images)


def test_part_of_a_patch_is_refused():
    with pytest.raises(InputError, match="a multiple of 4x4 pixels, found 8x10"):
        cut_patches(torch.zeros(1, 3, 8, 10), (4, 4))
    with pytest.raises(InputError, match="expected 2x2, found 3"):
        join_patches(torch.zeros(1, 3, 48), (4, 4), (2, 2))


def test_statistics_are_numpys():
    patches = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    mean, deviation = patch_statistics(patches)
    np.testing.assert_allclose(mean[..., 0], patches.numpy().mean(axis=2), atol=1e-6)
    expected = np.sqrt(patches.numpy().var(axis=2, ddof=1) + 1e-6)
    np.testing.assert_allclose(deviation[..., 0], expected, rtol=1e-6)
    assert patch_statistics(torch.ones(1, 1, 48))[1].item() == pytest.approx(1e-3)


@pytest.mark.parametrize("normalised", [False, True])
def test_error_is_that_of_a_loop(normalised):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 16, 16, generator=generator)
    predicted = torch.randn(3, 16, 48, generator=generator)
    mask = torch.stack([draw_mask(16, 0.75, generator) for _ in range(3)])
    found = reconstruction_errors(predicted, images, mask, (4, 4), normalised)
    expected = [
        error_by_loop(p, i, m, (4, 4), normalised)
        for p, i, m in zip(predicted, images, mask, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_only_hidden_patches_count(normalised):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 16, 16, generator=generator)
    mask = torch.stack([draw_mask(16, 0.5, generator) for _ in range(2)])
    predicted = torch.randn(2, 16, 48, generator=generator, requires_grad=True)

    def errors(values):
        return reconstruction_errors(values, images, mask, (4, 4), normalised)

    other = torch.where(mask[..., None], predicted, 1000.0)
    assert torch.equal(errors(predicted), errors(other))
    errors(predicted).sum().backward()
    assert (predicted.grad[~mask] == 0).all()
    assert (predicted.grad[mask] != 0).all()


def test_no_image_has_no_error():
    empty = torch.zeros(0, 16, dtype=torch.bool)
    found = reconstruction_errors(
        torch.zeros(0, 16, 48), torch.zeros(0, 3, 16, 16), empty, (4, 4), True
    )
    assert found.shape == (0,)
