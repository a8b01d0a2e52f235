"""Weights to train on from: patches bilinear, positions linear, class token kept, head anew."""

import logging

import numpy as np
import pytest
import scipy.ndimage
import timm
import torch
import torch.nn.functional as F

from crate_interp.errors import CheckpointError
from crate_interp.weights.fit import load_checkpoint_into
from crate_interp.weights.resampling import patch_size_of, resample_patches, resample_positions

FAMILIES = ("crate_alpha_tiny_patch16_224", "crate_tiny_patch16_224", "vit_tiny_patch16_224")
CRATE_ALPHA = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
CRATE = "crate_d48_l2_h3_p8_i32_c10.pth.tar"
KERNELS = ("patch_embed.proj.weight", "patch_embed.proj.linear.weight")

# jax.image.resize(k, (s, s, 2, 2), "bilinear")[1, :, 0, 1] of k = sin(0), sin(1), ..., shape
# (6, 6, 2, 2), by jax 0.10.2: what the released training calls.
JAX_ROWS = {
    4: [-0.3645586371, 0.2318618745, -0.2046998888, 0.2598272264],
    9: [
        *(0.3545596302, -0.2283597142, -0.5583965778, 0.4531330466, 0.2971648276),
        *(-0.1864063293, -0.4852893949, 0.1418847442, 0.8437795043),
    ],
}


def make(name, patch_size, grid, **arguments):
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 10, **arguments}
    torch.manual_seed(patch_size)
    model = timm.create_model(name, patch_size=patch_size, img_size=patch_size * grid, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def save(model, path):
    torch.save(model.state_dict(), path)
    return path


def kernel_of(model):
    """The patch embedding's linear map as pictures of a patch, (D, 3, p, p)."""
    key = next(key for key in KERNELS if key in model.state_dict())
    side = model.patch_embed.patch_size[0]
    weight = model.state_dict()[key]
    return weight if weight.ndim == 4 else weight.unflatten(1, (side, side, 3)).movedim(-1, 1)


@pytest.mark.parametrize(("patch_size", "grid"), [(4, 8), (16, 2), (14, 4), (8, 5)])
@pytest.mark.parametrize("name", FAMILIES)
def test_next_model_of_a_chain_begins_with_the_resampled_one(name, patch_size, grid, tmp_path):
    first, second = make(name, 8, 4), make(name, patch_size, grid)
    head = second.head.weight.detach().clone()
    load_checkpoint_into(second, save(first, tmp_path / "first.pth"), way="linear")
    old, new = first.state_dict(), second.state_dict()
    size = (patch_size, patch_size)
    expected = F.interpolate(kernel_of(first), size, mode="bilinear", antialias=True)
    torch.testing.assert_close(kernel_of(second), expected)
    square = old["pos_embed"][0, 1:].reshape(4, 4, 48).numpy()
    zoomed = scipy.ndimage.zoom(square, (grid / 4, grid / 4, 1), order=1)
    torch.testing.assert_close(new["pos_embed"][0, 1:], torch.from_numpy(zoomed).flatten(0, 1))
    assert torch.equal(new["pos_embed"][:, 0], old["pos_embed"][:, 0])
    assert torch.equal(second.head.weight, head if patch_size != 8 else first.head.weight)
    for key in old.keys() - {"pos_embed", "head.weight", "head.bias"}:
        if not key.startswith("patch_embed.proj."):
            assert torch.equal(old[key], new[key]), key
    if "patch_embed.proj.norm.weight" in old:
        for part in ("weight", "bias"):
            key = f"patch_embed.proj.norm.{part}"
            picture = old[key].reshape(1, 8, 8, 3).permute(0, 3, 1, 2)
            resized = F.interpolate(picture, size, mode="bilinear", antialias=True)
            torch.testing.assert_close(new[key], resized.permute(0, 2, 3, 1).flatten())


@pytest.mark.parametrize("side", JAX_ROWS)
def test_kernel_is_that_of_the_released_training(side):
    kernel = np.sin(np.arange(6 * 6 * 2 * 2, dtype=np.float32)).reshape(6, 6, 2, 2)
    model = timm.create_model(
        FAMILIES[0], embed_dim=2, num_heads=1, depth=1, in_chans=2, patch_size=side, img_size=36
    )
    tensors = {"patch_embed.proj.weight": torch.from_numpy(kernel).permute(3, 2, 0, 1)}
    assert resample_patches(tensors, model, "linear")
    row = tensors["patch_embed.proj.weight"][1, 0, 1]
    torch.testing.assert_close(row, torch.tensor(JAX_ROWS[side]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_constant_kernel_and_positions_stay_constant(name, tmp_path):
    first, second = make(name, 32, 3), make(name, 14, 7)
    with torch.no_grad():
        for key, parameter in first.named_parameters():
            if key.startswith("patch_embed.proj.") or key == "pos_embed":
                parameter.fill_(0.25)
    load_checkpoint_into(second, save(first, tmp_path / "first.pth"), way="linear")
    for key, value in second.state_dict().items():
        if key.startswith("patch_embed.proj.") or key == "pos_embed":
            torch.testing.assert_close(value, torch.full_like(value, 0.25))


def test_corners_of_the_position_grid_stay():
    model = make(FAMILIES[0], 4, 7)
    positions = torch.randn(1, 17, 48)
    found = resample_positions(positions, model, "linear", any_grid=False)
    old, new = positions[0, 1:].unflatten(0, (4, 4)), found[0, 1:].unflatten(0, (7, 7))
    for row in (0, -1):
        for column in (0, -1):
            torch.testing.assert_close(new[row, column], old[row, column])
    torch.testing.assert_close(new[0, 1], (old[0, 0] + old[0, 1]) / 2)  # half-way


@pytest.mark.parametrize("file", [CRATE_ALPHA, CRATE])
def test_official_file_goes_to_another_patch_size(file, reference, sizes, caplog):
    name = FAMILIES[0] if file == CRATE_ALPHA else FAMILIES[1]
    own = timm.create_model(name, **sizes, num_classes=10)
    load_checkpoint_into(own, reference / file, "refuse")
    model = timm.create_model(name, **{**sizes, "patch_size": 4}, num_classes=10)
    with caplog.at_level(logging.INFO):
        load_checkpoint_into(model, reference / file, way="linear")
    assert "resampled from 8x8 pixels to 4x4" in caplog.text
    assert "no classifier of 10 classes is taken" in caplog.text
    expected = F.interpolate(kernel_of(own), (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(kernel_of(model), expected)
    assert model.pos_embed.shape[1] == 65


def test_inference_still_refuses_another_patch_size(reference, sizes):
    model = timm.create_model(FAMILIES[0], **{**sizes, "patch_size": 4})
    with pytest.raises(CheckpointError, match="expected patches of 4x4 pixels, found 8x8"):
        load_checkpoint_into(model, reference / CRATE_ALPHA, "follow")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(FAMILIES[0], {"depth": 3}), (FAMILIES[0], {"embed_dim": 96}), (FAMILIES[1], {})],
)
def test_checkpoint_of_another_model_is_refused(name, arguments, tmp_path):
    path = save(make(FAMILIES[0], 8, 4), tmp_path / "first.pth")
    with pytest.raises(CheckpointError, match=r"first\.pth: .*(wrong sizes|missing|unknown)"):
        load_checkpoint_into(make(name, 4, 4, **arguments), path, way="linear")


def test_nothing_is_resampled_where_the_stem_does_not_tell_its_patches():
    model = make(FAMILIES[1], 4, 4)
    assert patch_size_of({}) is None
    odd = {"patch_embed.proj.norm.weight": torch.ones(7), "pos_embed": torch.ones(1, 7, 48)}
    assert not resample_patches(dict(odd), model, "linear")
    assert resample_positions(odd["pos_embed"], model, "linear", any_grid=False) is odd["pos_embed"]


@pytest.mark.parametrize("tokens", [0, 1])
def test_positions_of_no_patch_are_left_for_the_check_of_shapes(tokens):
    model = make("vit_tiny_patch16_224", 16, 2)
    positions = torch.zeros(1, tokens, 48)
    assert resample_positions(positions, model, "preserving", True) is positions
