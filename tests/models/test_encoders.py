"""Vision encoders of language models, alone and in a classifier, with their words left out."""

import pytest
import timm
import torch

from crate_interp import InputError, any_resolution, intervene, load_backbone, record
from crate_interp.errors import CheckpointError
from crate_interp.hooks import Target, ZeroEdit, head_input, scores_from
from crate_interp.models.backbones import blocks_of, lacking_in, trunk_of
from crate_interp.weights.fit import load_checkpoint_into

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
NAMES = ["deepseek_vit_412m", "gemma4_vit_167m", "qwen3_vit_88m"]
WITH_PROJECTOR = ["deepseek_vit_412m_align", "qwen3_vit_88m_merge"]
pytestmark = pytest.mark.skipif(
    not set(NAMES) <= set(timm.list_models()), reason="this release of timm has no such encoders"
)


def made(name, **arguments):
    sizes = SIZES | ({"head_dim": 16, "intermediate_size": 64} if "gemma" in name else {})
    torch.manual_seed(0)
    model = timm.create_model(name, **sizes, **arguments).eval().requires_grad_(False)
    for bound, buffer in model.named_buffers():  # infinite in untrained models
        if bound.endswith(("_min", "_max")):
            buffer.fill_(-0.5 if bound.endswith("_min") else 0.5)
    return model


@pytest.mark.parametrize("name", [*(f"{name}_enc" for name in NAMES), *WITH_PROJECTOR])
def test_an_encoder_takes_grids_that_its_projector_does_not(name):
    model = load_backbone(name, pretrained=False, depth=1, embed_dim=48, num_heads=3)
    assert not lacking_in(model)
    height, width = trunk_of(model).patch_embed.patch_size
    silenced = intervene(model, {Target("tokens", -1, tokens=2): ZeroEdit()})
    with torch.inference_mode(), silenced, record(model, ["key", "tokens"], -1) as recorder:
        model(torch.randn(2, 3, 5 * height, 3 * width))
    tokens = recorder.activations["tokens", -1]
    assert recorder.activations.grid_hw == (5, 3)
    assert recorder.activations.num_prefix_tokens == 0
    assert tokens.shape == (2, 15, 48)
    assert not tokens[:, 2].any()


@pytest.mark.parametrize("name", NAMES)
def test_class_scores_of_a_classifier_go_on_from_the_middle(name):
    model, pixels = made(name, num_classes=5), torch.randn(2, 3, 40, 24)
    with any_resolution(model), record(model, ["tokens_in", "tokens"], [0, 1]) as recorder:
        expected = model(pixels)
    passed = recorder.activations
    for block in (0, 1):
        entering = passed["tokens_in", block]
        found = scores_from(model, entering, block, passed.arguments)
        torch.testing.assert_close(found, expected)
    pooled = head_input(model, passed["tokens", 1])
    torch.testing.assert_close(model.head(pooled), expected)
    with pytest.raises(InputError, match="block 1 is run with rope"):
        scores_from(model, passed["tokens_in", 1], 1)


@pytest.mark.parametrize("name", [f"{name}_enc" for name in NAMES])
def test_an_encoder_alone_has_no_head(name):
    model = made(name, global_pool="")
    with pytest.raises(InputError, match="expected a model with a head, found none"):
        head_input(model, torch.zeros(1, 6, 48))
    with pytest.raises(InputError, match="gives no class scores"):
        scores_from(model, torch.zeros(1, 6, 48), 2)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_the_whole_fit_the_encoder_and_the_classifier(name, tmp_path):
    path, pixels = tmp_path / "encoder.pth", torch.randn(1, 3, 48, 48)
    words = {} if "gemma" in name else {"out_features": 32}
    whole = made(f"{name}_enc", **words)
    torch.save(whole.state_dict(), path)
    for model in (made(f"{name}_enc", global_pool=""), made(name, num_classes=0)):
        for parameter in model.parameters():
            parameter.add_(1)
        load_checkpoint_into(model, path, "follow")
        for block, expected in zip(blocks_of(model), whole.blocks, strict=True):
            assert torch.equal(block.norm1.weight, expected.norm1.weight)
        with record(model, "key", -1) as found, record(whole, "key", -1) as expected:
            model(pixels)
            whole(pixels)
        assert torch.equal(found.activations["key", -1], expected.activations["key", -1])
    classifier, other = made(name, num_classes=5), made(name, num_classes=3)
    torch.save(classifier.state_dict(), path)
    load_checkpoint_into(other, path, "follow")
    assert torch.equal(other(pixels), classifier(pixels))
    state = classifier.state_dict()
    state["encoder.blocks.0.norm1.weight"] = torch.zeros(7)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"expected \(48,\), found \(7,\)"):
        load_checkpoint_into(other, path, "follow")


def test_a_mask_on_attention_is_refused_by_its_name():
    model = made("gemma4_vit_167m_enc", global_pool="")
    coordinates = torch.tensor([[[0, 0], [0, 1], [-1, -1]]])
    pixels = torch.zeros(1, 3, 3 * 64)
    with record(model, "key", -1) as recorder, pytest.raises(InputError, match="images of shape"):
        model.forward_features(pixels.view(1, 3, -1), coordinates)
    with pytest.raises(InputError, match="nothing was recorded"):
        _ = recorder.activations
    tokens, rope = torch.zeros(1, 3, 48), torch.zeros(1, 3, 16)
    with record(model, "attention", -1), pytest.raises(InputError, match="with a mask"):
        model.blocks[-1](tokens, rope, rope, torch.zeros(1, 1, 1, 3))
