import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from crate_interp import Activations, ImageGeometry, InputError, Instances
from crate_interp.structures import boxes_of_masks


def masks(*shape, seed=0):
    return np.random.default_rng(seed).random(shape) > 0.5


def test_grid_to_input_repeats_each_patch():
    geometry = ImageGeometry((50, 70), (32, 48), (8, 16))
    grid = masks(2, 4, 3)
    expected = grid.repeat(8, axis=1).repeat(16, axis=2)
    np.testing.assert_array_equal(geometry.grid_to_input(grid), expected)


def test_grid_to_input_with_a_stride_takes_the_nearest_patch_centre():
    geometry = ImageGeometry((32, 32), (32, 32), (8, 8), stride_hw=(4, 4))
    assert geometry.grid_hw == (7, 7)
    grid = masks(1, 7, 7)
    found = geometry.grid_to_input(grid)
    centres = 4 * np.arange(7) + 4.0
    for y in range(32):
        for x in range(32):
            row, column = (np.abs(centres - (p + 0.5)).argmin() for p in (y, x))
            assert found[0, y, x] == grid[0, row, column]


@pytest.mark.parametrize("original_hw", [(64, 64), (45, 101), (1, 1), (7, 5)])
def test_input_to_original_takes_the_pixel_that_holds_the_centre(original_hw):
    geometry = ImageGeometry(original_hw, (32, 32), (8, 8))
    given = masks(1, 32, 32)
    found = geometry.input_to_original(given)
    height, width = original_hw
    assert found.shape == (1, height, width)
    for y in range(height):
        for x in range(width):
            row = math.floor((y + Fraction(1, 2)) * 32 / height)
            column = math.floor((x + Fraction(1, 2)) * 32 / width)
            assert found[0, y, x] == given[0, row, column]


@pytest.mark.parametrize("original_hw", [(24, 32), (7, 5), (100, 31)])
@pytest.mark.parametrize("stride", [None, 4])
def test_original_to_grid_takes_the_pixel_at_the_centre_of_each_patch(original_hw, stride):
    geometry = ImageGeometry(original_hw, (24, 32), (8, 8), stride and (stride, stride))
    labels = np.arange(original_hw[0] * original_hw[1]).reshape(original_hw)
    found = geometry.original_to_grid(labels)
    assert found.shape == geometry.grid_hw
    for (row, column), value in np.ndenumerate(found):
        y, x = ((stride or 8) * place + 4 for place in (row, column))
        expected = labels[int(y * original_hw[0] / 24), int(x * original_hw[1] / 32)]
        assert value == expected
    with pytest.raises(InputError, match="do not lie on the original image"):
        geometry.original_to_grid(labels.T[:, :-1])


def test_geometry_refuses_masks_of_another_size_and_too_small_inputs():
    geometry = ImageGeometry((32, 32), (32, 32), (8, 8))
    with pytest.raises(InputError, match=r"\(5, 4\) do not lie on the grid \(4, 4\)"):
        geometry.grid_to_input(masks(1, 5, 4))
    with pytest.raises(InputError, match="do not lie on the input"):
        geometry.input_to_original(masks(1, 31, 32))
    with pytest.raises(InputError, match="smaller than a patch"):
        ImageGeometry((32, 32), (4, 32), (8, 8))


@pytest.mark.parametrize(("original_hw", "stride"), [((45, 101), 8), ((7, 5), 8), ((64, 40), 4)])
def test_patch_at_is_where_a_mask_of_the_patch_lies(original_hw, stride):
    geometry = ImageGeometry(original_hw, (32, 32), (8, 8), (stride, stride))
    rows, columns = geometry.grid_hw
    numbers = np.arange(rows * columns).reshape(1, rows, columns)
    shown = geometry.input_to_original(geometry.grid_to_input(numbers))[0]
    np.testing.assert_array_equal(geometry.grid_to_original(numbers)[0], shown)
    for y, x in np.ndindex(original_hw):
        row, column = geometry.patch_at(y, x)
        assert shown[y, x] == row * columns + column
    for y, x in ((-1, 0), (0, -1), (original_hw[0], 0), (0, original_hw[1])):
        with pytest.raises(InputError, match=rf"pixel {y},{x} lies outside the image"):
            geometry.patch_at(y, x)


def test_boxes_are_tight_and_end_after_the_last_pixel():
    given = np.zeros((2, 6, 8), dtype=bool)
    given[0, 2:5, 3] = True
    np.testing.assert_array_equal(boxes_of_masks(given), [[3, 2, 4, 5], [0, 0, 0, 0]])


def test_instances_without_masks_are_valid():
    instances = Instances(np.zeros((0, 6, 8), dtype=bool))
    assert len(instances) == 0
    assert instances.scores.shape == (0,)
    assert instances.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": np.zeros((2, 6, 8))}, "expected a bool array"),
        ({"masks": np.zeros((6, 8), dtype=bool)}, r"found bool of shape \(6, 8\)"),
        ({"masks": masks(2, 6, 8), "scores": np.ones(3)}, r"scores: expected shape \(2,\)"),
        ({"masks": masks(1, 6, 8), "scores": np.array([np.nan])}, "finite"),
        ({"masks": masks(2, 6, 8), "boxes_xyxy": np.ones((2, 3))}, "boxes_xyxy: expected shape"),
        ({"masks": [[[True]]]}, "masks: expected a bool array .*found list"),
        ({"masks": torch.ones(1, 6, 8, dtype=torch.bool)}, "masks: .*found Tensor"),
        ({"masks": masks(1, 6, 8), "scores": ["high"]}, "scores: expected numbers, found .*'high'"),
        ({"masks": masks(1, 6, 8), "boxes_xyxy": {}}, "boxes_xyxy: expected numbers, found {}"),
        ({"masks": masks(1, 6, 8), "frame": "patch"}, "frame: expected grid, .*found 'patch'"),
    ],
)
def test_instances_refuse(arguments, message):
    with pytest.raises(InputError, match=message):
        Instances(**arguments)


def test_instances_and_activations_describe_themselves_by_their_sizes():
    assert repr(Instances(masks(2, 6, 8))) == "Instances(2 masks of 6 x 8 pixels, frame='original')"
    tensors = {("key", block): torch.zeros(1, 5, 6) for block in range(6)}
    assert repr(Activations(tensors, 6, 1, (2, 2))) == (
        "Activations({('key', 0): (1, 5, 6), ('key', 1): (1, 5, 6), ('key', 2): (1, 5, 6), "
        "('key', 3): (1, 5, 6), and 2 more}, num_blocks=6, num_prefix_tokens=1, grid_hw=(2, 2))"
    )


@pytest.mark.parametrize("key", ["key", ("key",), ("key", "last"), 3])
def test_activations_refuse_what_names_no_site_and_block(key):
    with pytest.raises(KeyError, match="expected a site and the number of a block"):
        Activations({("key", 1): torch.zeros(1, 5, 6)}, 2, 1, (2, 2))[key]


def test_patch_features_refuse_a_site_without_tokens():
    tensors = {("attention", 1): torch.zeros(1, 3, 5, 5), ("key", 1): torch.zeros(1, 5, 6)}
    activations = Activations(tensors, num_blocks=2, num_prefix_tokens=1, grid_hw=(2, 2))
    assert activations.patch_features("key").shape == (1, 6, 4)
    with pytest.raises(InputError, match="no feature a token"):
        activations.patch_features("attention")


GEOMETRIES = [
    ImageGeometry((50, 70), (32, 48), (8, 16)),
    ImageGeometry((33, 20), (32, 32), (8, 8), stride_hw=(4, 4)),
    ImageGeometry((5, 7), (32, 32), (8, 8)),
    ImageGeometry((100, 31), (30, 30), (8, 8), stride_hw=(5, 5)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_original_to_grid_takes_the_pixel_that_holds_the_centre(geometry):
    given = masks(2, *geometry.original_hw)
    found = geometry.original_to_grid(given)
    strides = geometry.stride_hw or geometry.patch_hw
    assert found.shape == (2, *geometry.grid_hw)
    for row, column in np.ndindex(geometry.grid_hw):
        y, x = (
            math.floor((Fraction(patch, 2) + at * stride) * original / size)
            for at, stride, patch, size, original in zip(
                (row, column),
                strides,
                geometry.patch_hw,
                geometry.input_hw,
                geometry.original_hw,
                strict=True,
            )
        )
        np.testing.assert_array_equal(found[:, row, column], given[:, y, x])


def test_patch_box_lies_in_the_original_frame():
    geometry = ImageGeometry((64, 96), (32, 32), (8, 8), stride_hw=(4, 4))
    assert geometry.patch_box(0, 0) == (0, 0, 24, 16)
    assert geometry.patch_box(1, 6) == (72, 8, 96, 24)


@pytest.mark.parametrize("at", [(-1, 0), (0, -1), (50, 0), (0, 70)])
def test_pixels_outside_the_image_have_no_patch(at):
    with pytest.raises(InputError, match="outside the image: expected y from 0 to 49 and x from 0"):
        GEOMETRIES[0].patch_at(*at)
    with pytest.raises(InputError, match="do not lie on the original"):
        GEOMETRIES[0].original_to_grid(masks(1, 70, 50))


@pytest.mark.parametrize(
    ("original_hw", "refused"),
    [((4, 4), False), ((3, 400), True), ((400, 3), True), ((1, 1), True), ((4, 400), False)],
)
def test_an_image_smaller_than_a_patch_is_refused_by_name(original_hw, refused):
    geometry = ImageGeometry(original_hw, (48, 48), (4, 4))
    if not refused:
        geometry.refuse_less_than_a_patch("a.png")
        return
    height, width = original_hw
    with pytest.raises(
        InputError, match=rf"^a\.png: {height} x {width} pixels .* a patch of 4 x 4"
    ):
        geometry.refuse_less_than_a_patch("a.png")
