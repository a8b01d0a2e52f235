"""What timm promises of its models holds for every architecture registered here."""

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer

import crate_interp.models  # noqa: F401  (registers the models)

FAMILIES = [
    "crate_small_patch16_224",
    "crate_alpha_base_patch8_224",
    "crate_mae_base_patch16_224",
    "crate_alpha_clipa_large_patch14_224",
]
ALL = [
    name
    for name in timm.list_models("crate*")
    if timm.model_entrypoint(name).__module__.startswith("crate_interp.")
]
SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32}


def make(name, **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, **{"num_classes": 5, **SMALL, **arguments}).eval()


def test_every_architecture_is_registered():
    assert len(ALL) == 26
    assert {f"crate_{size}_patch16_224" for size in ("tiny", "small", "base", "large")} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_model_runs_and_learns(name):
    model = make(name).train()
    assert isinstance(model, VisionTransformer)
    assert type(model).__mro__[1] is VisionTransformer
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", ALL)
def test_data_config_is_that_of_imagenet(name):
    with torch.device("meta"):
        model = timm.create_model(name, weight_init="skip")
    config = resolve_model_data_config(model)
    assert config["mean"] == (0.485, 0.456, 0.406)
    assert config["std"] == (0.229, 0.224, 0.225)
    assert config["interpolation"] == "bicubic"
    if not name.endswith(("_demo", "_photo")):
        assert config["input_size"] == (3, 224, 224)
    create_transform(**config, is_training=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_intermediates_are_what_leaves_the_blocks(name):
    model = make(name)
    images = torch.randn(2, 3, 32, 32)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    last, found = model.forward_intermediates(images, indices=[0, 2], return_prefix_tokens=True)
    for block, (patches, prefix) in zip((0, 2), found, strict=True):
        assert patches.shape == (2, 24, 4, 4)
        assert torch.equal(patches.flatten(2).transpose(1, 2), seen[block][:, 1:])
        assert torch.equal(prefix, seen[block][:, :1])
    assert torch.equal(last, model.forward_features(images))
    # un-normalised, but CRATE-MAE's encoder, whose final norm is part of it
    assert torch.equal(last, model.norm(seen[2]))
    assert (name.startswith("crate_mae")) == (not torch.equal(last, seen[2]))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_only_gives_maps(name):
    model = make(name, features_only=True, out_indices=(0, 2))
    assert [tuple(maps.shape) for maps in model(torch.randn(1, 3, 32, 32))] == [(1, 24, 4, 4)] * 2
    assert model.feature_info.reduction() == [8, 8]


@pytest.mark.parametrize("name", FAMILIES)
def test_classifier_can_be_reset(name):
    model, images = make(name), torch.randn(2, 3, 32, 32)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    assert model.get_classifier() is model.head
    model.reset_classifier(0)
    assert model(images).shape == (2, 24)
    model.reset_classifier(3, global_pool="avg")
    assert model(images).shape == (2, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_size_is_as_good_as_the_size_set(name):
    fixed, dynamic = make(name), make(name, dynamic_img_size=True)
    dynamic.load_state_dict(fixed.state_dict())
    images = torch.randn(2, 3, 40, 64)
    fixed.set_input_size(img_size=(40, 64))
    assert fixed.patch_embed.grid_size == (5, 8)
    torch.testing.assert_close(fixed(images), dynamic(images), rtol=0, atol=1e-6)
    square = torch.randn(1, 3, 32, 32)
    assert torch.equal(dynamic(square), make(name)(square))


@pytest.mark.parametrize("name", FAMILIES)
def test_patch_size_can_be_set(name):
    model = make(name)
    before = model(torch.nn.functional.interpolate(torch.ones(1, 3, 4, 4), (32, 32)))
    model.set_input_size(img_size=(64, 64), patch_size=(16, 16))
    assert model.patch_embed.grid_size == (4, 4)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    # twice as large a picture of one colour, cut into patches twice as large, is the same
    after = model(torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_image_of_another_size_is_refused(name):
    with pytest.raises(AssertionError, match=r"height \(40\) doesn't match"):
        make(name)(torch.randn(1, 3, 40, 40))
    with pytest.raises(AssertionError, match=r"height \(41\) should be divisible"):
        make(name, dynamic_img_size=True)(torch.randn(1, 3, 41, 40))
    assert make(name, dynamic_img_size=True, dynamic_img_pad=True)(
        torch.randn(1, 3, 41, 40)
    ).shape == (1, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_changes_nothing(name):
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model = make(name).train()
        model.set_grad_checkpointing(enable)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_grouped_for_fine_tuning(name):
    model = make(name)
    assert model.no_weight_decay() == {"pos_embed", "cls_token", "reg_token", "dist_token"}
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["cls_token"] == groups["pos_embed"] == 0
    assert {groups[k] for k in groups if k.startswith("patch_embed")} == {0}
    for number in range(3):
        own = {groups[key] for key in groups if key.startswith(f"blocks.{number}.")}
        assert own == {number + 1}
    assert groups["head.weight"] >= 3


@pytest.mark.parametrize("name", FAMILIES)
def test_drop_path_grows_with_depth(name):
    model = make(name, drop_path_rate=0.2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), make(name)(images))


@pytest.mark.parametrize("mode", ["", "jax", "jax_nlhb", "moco", "reset", "skip"])
@pytest.mark.parametrize("name", ["crate_tiny_patch16_224", "crate_alpha_tiny_patch16_224"])
def test_weights_can_be_initialised_in_timms_ways(name, mode):
    model = make(name, weight_init=mode)
    if mode == "skip":
        model.init_weights()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    dictionary = next(p for k, p in model.named_parameters() if k.startswith("blocks.0.mlp."))
    with torch.no_grad():
        dictionary.zero_()
    model.init_weights()
    # uniform in +-sqrt(6 / fan_in), as kaiming_uniform_ draws
    bound = (6 / dictionary.shape[1]) ** 0.5
    assert 0.9 * bound < dictionary.abs().max() <= bound


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_model_gives_the_same(name):
    model, images = make(name, depth=1), torch.randn(2, 3, 32, 32)
    if hasattr(type(model.blocks[0]).forward, "__wrapped__"):
        pytest.skip("annotations are checked at run time, which cannot be compiled")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_state_dict_round_trips_through_timm(name, tmp_path):
    from safetensors.torch import save_file

    model = make(name)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    torch.save(model.state_dict(), tmp_path / "own.pth")
    images = torch.randn(1, 3, 32, 32)
    for file in ("own.safetensors", "own.pth"):
        overlay = {"file": str(tmp_path / file), "num_classes": 5}
        again = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, **SMALL
        )
        assert torch.equal(again.eval()(images), model(images))
        # another number of classes begins a new head, as with any model of timm
        other = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=2, **SMALL
        )
        assert torch.equal(other.eval().forward_features(images), model.forward_features(images))


def test_a_model_without_a_classifier_takes_a_file_with_one(reference):
    file = reference / "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
    model = timm.create_model(
        "crate_alpha_base_patch8_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": file, "num_classes": 0},
        embed_dim=48,
        depth=2,
        num_heads=3,
        img_size=32,
        num_classes=0,
    )
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 48)
