"""The bilateral solver against a dense solution of its equations over a grid of dictionaries."""

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.segmentation import bilateral_solver, refine_masks

MANY_CELLS, FEW_CELLS = (4, 24, 16), (13, 96, 64)


def picture(seed=0, height=20, width=26):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    image[5:14, 6:19] += np.array([120, 80, 20], np.uint8)
    return image, rng.random((2, height, width)) < [[[0.3]], [[0.7]]]


def cell_of(row, column, rgb, sizes):
    """Cell of a pixel, with luma and chroma by JPEG's formulas."""
    red, green, blue = (float(value) for value in rgb)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = (
        -0.168736 * red - 0.331264 * green + 0.5 * blue + 128,
        0.5 * red - 0.418688 * green - 0.081312 * blue + 128,
    )
    spatial = (int(row // sizes[0]), int(column // sizes[0]))
    return (*spatial, int(luma // sizes[1]), *(int(value // sizes[2]) for value in chroma))


def dense_equations(image, targets, sizes, smoothness=256.0, confidence=0.999):
    """Write out lambda (D_m - D_n B D_n) + diag(S c), S (c t) and S."""
    cells = [cell_of(*at, image[at], sizes) for at in np.ndindex(image.shape[:2])]
    numbers = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
    splat = np.zeros((len(numbers), len(cells)))
    for pixel, cell in enumerate(cells):
        splat[numbers[cell], pixel] = 1
    blur = np.zeros((len(numbers), len(numbers)))
    for one, row in numbers.items():
        for other, column in numbers.items():
            distance = sum(abs(a - b) for a, b in zip(one, other, strict=True))
            blur[row, column] = {0: 10, 1: 1}.get(distance, 0)
    mass = splat.sum(axis=1)
    scale = np.ones(len(numbers))
    for _ in range(10):
        scale = np.sqrt(scale * mass / (blur @ scale))
    degree = scale * (blur @ scale)
    matrix = smoothness * (np.diag(degree) - scale[:, None] * blur * scale)
    matrix += np.diag(confidence * mass)
    right = confidence * splat @ targets.reshape(len(targets), -1).T
    return matrix, right.T, splat


def conjugate_gradients(matrix, right, values, steps=25):
    """Take the steps of the textbook, preconditioned by the diagonal, down to 1e-5."""
    rest = right - matrix @ values
    scaled = rest / np.diag(matrix)
    direction = scaled
    for _ in range(steps):
        if np.linalg.norm(rest) < 1e-5 * np.linalg.norm(right):
            break
        length = rest @ scaled / (direction @ matrix @ direction)
        values, new = values + length * direction, rest - length * matrix @ direction
        new_scaled = new / np.diag(matrix)
        direction = new_scaled + (new @ new_scaled) / (rest @ scaled) * direction
        rest, scaled = new, new_scaled
    return values


@pytest.mark.parametrize("seed", range(3))
def test_maps_of_few_cells_solve_the_dense_equations(seed):
    image, targets = picture(seed)
    matrix, right, splat = dense_equations(image, targets, FEW_CELLS)
    assert len(matrix) < 40
    expected = (np.linalg.solve(matrix, right.T).T @ splat).reshape(targets.shape)
    maps = bilateral_solver(image, targets, *FEW_CELLS)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_maps_of_many_cells_are_those_of_25_steps_on_the_dense_equations(seed):
    image, targets = picture(seed)
    matrix, right, splat = dense_equations(image, targets, MANY_CELLS)
    assert len(matrix) > 200
    start = right / (0.999 * splat.sum(axis=1))
    values = np.stack(
        [conjugate_gradients(matrix, *of_one) for of_one in zip(right, start, strict=True)]
    )
    maps = bilateral_solver(image, targets, *MANY_CELLS)
    np.testing.assert_allclose(maps, (values @ splat).reshape(targets.shape), atol=1e-9)


def test_a_refined_mask_takes_the_edges_of_the_image():
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 15:45] = True
    image = np.where(mask[..., None], [210, 60, 40], [30, 60, 90]).astype(np.uint8)
    coarse = np.zeros_like(mask)
    coarse[8:32, 12:48] = True
    coarse[18:21, 20:24] = False  # a hole
    refined = refine_masks(image, coarse[None], "bilateral")
    np.testing.assert_array_equal(refined, mask[None])


def test_a_refined_mask_is_one_part():
    image = np.zeros((30, 30, 3), dtype=np.uint8)
    mask = np.zeros((30, 30), dtype=bool)
    mask[:20, :18], mask[24:30, 24:30] = True, True
    image[mask] = (200, 180, 20)
    expected = mask.copy()
    expected[24:, 24:] = False
    np.testing.assert_array_equal(refine_masks(image, mask[None], "bilateral"), expected[None])


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 0)])
def test_no_mask_gives_no_map(shape):
    image = np.zeros((*shape[1:], 3), dtype=np.uint8)
    assert bilateral_solver(image, np.zeros(shape, dtype=bool)).shape == shape


@pytest.mark.parametrize(
    ("image", "targets", "sizes", "message"),
    [
        (np.zeros((4, 5, 3)), np.ones((1, 4, 5), bool), (), "image: expected uint8"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((1, 5, 4), bool), (), "targets: expected bool"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((1, 4, 5)), (), "targets: expected bool"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((1, 4, 5), bool), (16, 0, 8), "sizes of a cell"),
    ],
)
def test_bad_input_is_refused(image, targets, sizes, message):
    with pytest.raises(InputError, match=message):
        bilateral_solver(image, targets, *sizes)
