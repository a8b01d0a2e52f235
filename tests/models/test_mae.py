"""CRATE-MAE against the official implementation's numbers."""

import numpy as np
import pytest
import timm
import torch

from crate_interp.commands.convert import Convert
from crate_interp.errors import CheckpointError, InputError
from crate_interp.models.mae import CrateMaeDecoder
from crate_interp.weights import ModelRecord, load_backbone, read_checkpoint, write_safetensors
from crate_interp.weights.autoencoder import load_mae, mae_file_of
from crate_interp.weights.fit import load_checkpoint_into

NAME = "crate_mae_d48_l2_h3_p8_i32"
ARCHITECTURE = "crate_mae_base_patch16_224"


@pytest.fixture
def model(reference, sizes):
    return load_mae(ARCHITECTURE, reference / f"{NAME}.pth", **sizes)


@pytest.fixture
def expected(reference):
    return np.load(reference / f"{NAME}_io.npz")


@pytest.mark.parametrize("how", ["load_checkpoint_into", "timm"])
def test_encoder_gives_the_reference_vectors(how, reference, sizes, expected, trace):
    path = reference / f"{NAME}.pth"
    if how == "timm":
        overlay = {"file": str(path)}
        model = timm.create_model(
            ARCHITECTURE, pretrained=True, pretrained_cfg_overlay=overlay, **sizes
        )
    else:
        model = timm.create_model(ARCHITECTURE, **sizes)
        load_checkpoint_into(model, path, "follow")
    model.eval()
    images = torch.from_numpy(expected["input_nchw"])
    found = trace(model, images)
    found["tokens_in"] = found["block00/out input"]
    found["encoded"] = model.forward_features(images).detach()
    names = [n for n in expected.files if n not in ("input_nchw", "decoded_no_mask")]
    assert len(names) == 8
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4)


def test_whole_model_gives_the_reference_vectors(model, expected):
    images = torch.from_numpy(expected["input_nchw"])
    with torch.no_grad():
        encoded = model.encode(images)
        decoded = model.decode(encoded)
    np.testing.assert_allclose(encoded, expected["encoded"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(decoded, expected["decoded_no_mask"], rtol=0, atol=1e-4)


def test_reconstruction_puts_patches_where_they_belong(model, expected):
    images = torch.from_numpy(expected["input_nchw"])
    with torch.no_grad():
        picture = model.reconstruct(images)
    assert picture.shape == images.shape
    for patch, (row, column) in enumerate(np.ndindex(4, 4)):
        block = picture[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        values = block.permute(0, 2, 3, 1).flatten(1)
        np.testing.assert_allclose(values, expected["decoded_no_mask"][:, patch], rtol=0, atol=1e-4)


def test_hidden_patches_are_not_seen(model):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True  # second row, second column
    changed = images.clone()
    changed[:, :, 8:16, 8:16] = 7
    with torch.no_grad():
        assert torch.equal(model.reconstruct(images, mask), model.reconstruct(changed, mask))
        assert not torch.equal(model.reconstruct(images), model.reconstruct(changed))
        none = torch.zeros(2, 16, dtype=torch.bool)
        assert torch.equal(model.reconstruct(images, none), model.reconstruct(images))


def test_mask_token_takes_the_place_of_a_hidden_patch(model):
    tokens = []
    hook = model.encoder.blocks[0].register_forward_pre_hook(lambda m, i: tokens.append(i[0]))
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[:, 5] = True
    with torch.no_grad():
        model.encode(torch.randn(1, 3, 32, 32), mask)
    hook.remove()
    expected = model.decoder.mask_token[0, 0] + model.encoder.pos_embed[0, 6]
    torch.testing.assert_close(tokens[0][0, 6], expected.detach())


def test_positions_of_a_new_model_are_those_of_the_release(reference, sizes):
    released = torch.load(reference / f"{NAME}.pth", weights_only=True)["model"]["pos_embed"]
    model = timm.create_model(ARCHITECTURE, **sizes)
    torch.testing.assert_close(model.pos_embed.detach(), released, rtol=0, atol=1e-6)
    assert not model.pos_embed.requires_grad
    with torch.no_grad():
        model.pos_embed.zero_()
    model.init_weights()
    torch.testing.assert_close(model.pos_embed.detach(), released, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "mask", [torch.zeros(1, 15, dtype=torch.bool), torch.zeros(1, 16)], ids=["short", "float"]
)
def test_wrong_mask_is_refused(mask, model):
    # a TypeError where annotations are checked at run time
    with pytest.raises((InputError, TypeError), match="mask"):
        model.encode(torch.randn(1, 3, 32, 32), mask)


def test_no_image_gives_no_reconstruction(reference, sizes):
    # timm cannot take an empty batch of images of any size
    path = reference / f"{NAME}.pth"
    model = load_mae(ARCHITECTURE, path, dynamic_img_size=False, **sizes)
    assert model.reconstruct(torch.empty(0, 3, 32, 32)).shape == (0, 3, 32, 32)


def test_file_without_decoder_is_refused(reference, sizes, tmp_path):
    state = torch.load(reference / f"{NAME}.pth", weights_only=True)["model"]
    del state["decoder_blocks.1.layers.0.0.fn.weight"]
    torch.save({"model": state}, tmp_path / "encoder.pth")
    with pytest.raises(CheckpointError, match=r"encoder\.pth.*decoder_blocks\.1\.layers\.0\.0\.fn"):
        load_mae(ARCHITECTURE, tmp_path / "encoder.pth", **sizes)


def test_other_model_is_refused(reference, sizes):
    path = reference / "crate_d48_l2_h3_p8_i32_c10.pth.tar"
    with pytest.raises(InputError, match="is a Crate; expected a CRATE-MAE"):
        load_mae("crate_tiny_patch16_224", path, **sizes)


def test_normalised_prediction_gets_the_mean_and_deviation_of_the_image(model, expected):
    images = torch.from_numpy(expected["input_nchw"])
    model.normalised_target = True
    with torch.no_grad():
        picture = model.reconstruct(images)
    for patch, (row, column) in enumerate(np.ndindex(4, 4)):
        place = (..., slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        own = images[place].permute(0, 2, 3, 1).flatten(1).double().numpy()
        deviation = np.sqrt(own.var(axis=1, ddof=1, keepdims=True) + 1e-6)
        predicted = expected["decoded_no_mask"][:, patch]
        values = predicted * deviation + own.mean(axis=1, keepdims=True)
        found = picture[place].permute(0, 2, 3, 1).flatten(1)
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-4)


def test_new_weights_are_drawn_as_the_release_does(sizes):
    torch.manual_seed(0)
    encoder = timm.create_model(ARCHITECTURE, **sizes)
    decoder = CrateMaeDecoder.of(encoder)
    assert len(decoder.blocks) == 2
    xavier = (6 / (48 + 48)) ** 0.5  # the bound of a uniform distribution
    for part in (encoder.blocks[1].attn, decoder.blocks[1].attn):
        for linear in (part.qkv, part.proj):
            assert 0.95 * xavier < linear.weight.abs().max() <= xavier
        assert (part.proj.bias == 0).all()
    kernel = encoder.patch_embed.proj.weight
    bound = (6 / (48 + 3 * 8 * 8)) ** 0.5
    assert 0.95 * bound < kernel.abs().max() <= bound
    kaiming = (6 / 48) ** 0.5
    for matrix in (encoder.blocks[0].mlp.weight, decoder.blocks[0].linear.weight):
        assert 0.95 * kaiming < matrix.abs().max() <= kaiming
    for token in (encoder.cls_token, decoder.mask_token):
        assert 0.01 < token.std() < 0.03


def test_gradient_checkpointing_changes_no_gradient(model):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(16).expand(2, -1) % 3 > 0
    gradients = []
    for on in (False, True):
        model.set_grad_checkpointing(on)
        model.zero_grad()
        model.train()(images, mask).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


@pytest.fixture
def our_file(model, sizes, tmp_path):
    """The reference model in our own layout."""
    model.normalised_target = True
    tensors, told = mae_file_of(model)
    record = ModelRecord(ARCHITECTURE, sizes, 0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    path = tmp_path / "mae.safetensors"
    write_safetensors(path, tensors, record.to_metadata() | told)
    return path


@pytest.mark.parametrize("how", ["path", "name"])
def test_our_file_gives_the_model_back(how, our_file, model, sizes):
    again = load_mae(our_file) if how == "path" else load_mae(ARCHITECTURE, our_file, **sizes)
    assert again.normalised_target
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    encoder = load_backbone(our_file)
    assert encoder.num_classes == 0
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], value), key


def test_our_file_converts_to_itself(our_file, tmp_path):
    again = tmp_path / "again.safetensors"
    Convert(our_file, again, ARCHITECTURE).run()
    before, after = read_checkpoint(our_file), read_checkpoint(again)
    assert load_mae(again).normalised_target
    assert before.state_dict.keys() == after.state_dict.keys()
    for key, value in before.state_dict.items():
        assert torch.equal(after.state_dict[key], value), key


def test_our_file_without_a_decoder_is_refused(our_file, tmp_path):
    checkpoint = read_checkpoint(our_file)
    encoder = {k: v for k, v in checkpoint.state_dict.items() if not k.startswith("decoder.")}
    path = tmp_path / "encoder.safetensors"
    write_safetensors(path, encoder, checkpoint.metadata)
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors: its decoder does not fit"):
        load_mae(path)
    cut = {k: v for k, v in checkpoint.state_dict.items() if k != "decoder.blocks.0.norm1.bias"}
    write_safetensors(path, cut, checkpoint.metadata)
    with pytest.raises(CheckpointError, match=r"missing: decoder\.blocks\.0\.norm1\.bias"):
        load_mae(path)


def test_the_input_of_an_autoencoder_is_normalised_as_asked(reference):
    file = reference / "crate_mae_d48_l2_h3_p8_i32.pth"
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
    model = load_mae(ARCHITECTURE, file, mean=[0.1, 0.2, 0.3], std=None, **sizes)
    assert tuple(model.encoder.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)
