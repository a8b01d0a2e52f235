"""CRATE-alpha-CLIPA against the official implementation's numbers."""

import sys

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from crate_interp.errors import CheckpointError, InputError
from crate_interp.models.clipa import CrateClip, TextTower, tokenize
from crate_interp.weights import load_clip
from crate_interp.weights.fit import load_checkpoint_into

NAME = "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2"
ARCHITECTURE = "crate_alpha_clipa_large_patch14_224"


@pytest.fixture
def weights(reference):
    return torch.load(reference / f"{NAME}.pth", weights_only=True)


@pytest.fixture
def expected(reference):
    return np.load(reference / f"{NAME}_io.npz")


@pytest.fixture
def model(reference, sizes):
    return load_clip(ARCHITECTURE, reference / f"{NAME}.pth", text_num_heads=2, **sizes)


@pytest.mark.parametrize("how", ["load_checkpoint_into", "timm"])
def test_vision_tower_gives_the_reference_embedding(how, reference, sizes, expected):
    path = reference / f"{NAME}.pth"
    if how == "timm":
        overlay = {"file": str(path), "num_classes": 48}
        model = timm.create_model(
            ARCHITECTURE, pretrained=True, pretrained_cfg_overlay=overlay, **sizes
        )
    else:
        model = timm.create_model(ARCHITECTURE, **sizes)
        load_checkpoint_into(model, path, "follow")
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(expected["input_nchw"]))
    np.testing.assert_allclose(found, expected["image_embedding"], rtol=0, atol=1e-4)


def test_both_towers_give_the_reference_embeddings(model, expected):
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(expected["input_nchw"]))
        texts = model.encode_text(torch.from_numpy(expected["token_ids"]))
    np.testing.assert_allclose(images, expected["image_embedding"], rtol=0, atol=1e-4)
    # The reference's text_projection was never initialised: some of its rows hold no numbers, or
    # numbers up to 1e38. The rest must agree absolutely, those relatively.
    assert np.isfinite(expected["text_embedding"]).mean() > 0.9
    np.testing.assert_allclose(texts, expected["text_embedding"], rtol=1e-4, atol=1e-4)
    ordinary = np.abs(np.nan_to_num(expected["text_embedding"], nan=np.inf)) < 1e3
    assert ordinary.mean() > 0.3
    np.testing.assert_allclose(
        texts.numpy()[ordinary], expected["text_embedding"][ordinary], rtol=0, atol=1e-4
    )


def _text_encoder(weights, tokens):
    """CLIPA's text encoder by torch's own multi-head attention, before its projection."""

    def norm(x, name):
        return functional.layer_norm(x, (48,), weights[f"{name}.weight"], None, 1e-6)

    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    for number in range(2):
        block = f"transformer.resblocks.{number}"
        y = norm(x, f"{block}.ln_1").transpose(0, 1)
        y, _ = functional.multi_head_attention_forward(
            y, y, y, 48, 2, weights[f"{block}.attn.in_proj_weight"],
            weights[f"{block}.attn.in_proj_bias"], None, None, False, 0.0,
            weights[f"{block}.attn.out_proj.weight"], weights[f"{block}.attn.out_proj.bias"],
        )  # fmt: skip
        x = x + y.transpose(0, 1)
        y = norm(x, f"{block}.ln_2")
        y = functional.linear(
            y, weights[f"{block}.mlp.c_fc.weight"], weights[f"{block}.mlp.c_fc.bias"]
        )
        y = functional.gelu(y, approximate="tanh")
        x = x + functional.linear(
            y, weights[f"{block}.mlp.c_proj.weight"], weights[f"{block}.mlp.c_proj.bias"]
        )
    return norm(x, "ln_final")[:, -1]


def test_text_tower_is_a_transformer_without_a_mask(model, weights, expected):
    tokens = torch.from_numpy(expected["token_ids"])
    torch.manual_seed(0)
    projection = torch.randn(48, 48)
    with torch.no_grad():
        model.text.projection.weight.copy_(projection)
        found = model.encode_text(tokens)
        torch.testing.assert_close(
            found, _text_encoder(weights, tokens) @ projection.T, rtol=0, atol=1e-4
        )


def test_zero_shot_is_a_softmax_of_scaled_cosines(model, weights):
    torch.manual_seed(0)
    images, texts = torch.randn(2, 48), torch.randn(3, 48)
    cosines = functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    expected = torch.softmax(weights["logit_scale"].exp() * cosines, dim=1)
    found = model.zero_shot(images, texts)
    torch.testing.assert_close(found.detach(), expected)
    torch.testing.assert_close(model.zero_shot(images * 5, texts * 0.1).detach(), expected)


def test_sizes_of_the_text_tower_are_those_of_the_file(model, weights):
    assert model.text.pos_embed.shape == weights["positional_embedding"].shape
    assert model.text.token_embedding.num_embeddings == 100
    assert len(model.text.blocks) == 2
    assert model.text.blocks[0].attn.num_heads == 2
    torch.testing.assert_close(model.logit_scale.detach(), weights["logit_scale"])


def test_heads_of_64_dimensions_are_the_default(reference, sizes):
    model = load_clip(ARCHITECTURE, reference / f"{NAME}.pth", **sizes)
    assert model.text.blocks[0].attn.num_heads == 1  # of a width of 48


def test_head_and_patches_stay_without_bias(sizes):
    model = timm.create_model(ARCHITECTURE, num_classes=5, **sizes)
    assert model.patch_embed.proj.bias is None
    assert model.head.bias is None
    model.reset_classifier(7)
    assert (model.head.out_features, model.head.bias) == (7, None)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 48)


def test_thirds_that_differ_are_refused(weights, sizes, tmp_path):
    weights["visual.transformer.resblocks.1.attn.in_proj_weight"][50, 3] += 0.25
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: .*1\.attn\.in_proj_weight.*0\.25"):
        load_clip(ARCHITECTURE, tmp_path / "other.pth", **sizes)


def test_thirds_of_a_single_number_are_refused(weights, sizes, tmp_path):
    weights["visual.transformer.resblocks.1.attn.in_proj_weight"] = torch.tensor(1.0)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: .*1\.attn\.in_proj_weight.*3 D rows"):
        load_clip(ARCHITECTURE, tmp_path / "other.pth", **sizes)


def test_norms_with_biases_are_read_too(weights, sizes, tmp_path):
    weights["visual.ln_post.bias"] = torch.full((48,), 0.5)
    weights["ln_final.bias"] = torch.full((48,), 0.25)
    torch.save(weights, tmp_path / "biased.pth")
    model = load_clip(ARCHITECTURE, tmp_path / "biased.pth", text_num_heads=2, **sizes)
    assert torch.equal(model.visual.fc_norm.bias.detach(), weights["visual.ln_post.bias"])
    assert torch.equal(model.text.norm.bias.detach(), weights["ln_final.bias"])
    assert not model.visual.blocks[0].norm1.bias.any()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text_projection", None, r"no text tower in it: text_projection is missing"),
        ("logit_scale", torch.zeros(3), r"logit_scale: expected 0 dimensions, found shape \(3,\)"),
        ("ln_final.weight", None, r"its text tower does not fit: missing: ln_final\.weight"),
        ("ln_final.weight", torch.zeros(7), r"ln_final\.weight: expected \(48,\), found \(7,\)"),
    ],
)
def test_wrong_text_tower_is_refused(key, value, message, weights, sizes, tmp_path):
    del weights[key]
    if value is not None:
        weights[key] = value
    torch.save(weights, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match=rf"wrong\.pth: .*{message}"):
        load_clip(ARCHITECTURE, tmp_path / "wrong.pth", **sizes)


def test_other_model_is_refused(reference, sizes):
    path = reference / "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
    with pytest.raises(InputError, match="expected a CRATE-alpha-CLIPA model"):
        load_clip("crate_alpha_tiny_patch16_224", path, **sizes)


def test_wrong_texts_are_refused(model):
    with pytest.raises(InputError, match=r"tokens: expected \(T, 8\), found \(1, 5\)"):
        model.encode_text(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(InputError, match="tokens: expected numbers below 100, found 0 to 100"):
        model.encode_text(torch.arange(93, 101)[None] * torch.tensor([0, 1, 1, 1, 1, 1, 1, 1]))
    with pytest.raises(InputError, match="expected one text or more, found none"):
        model.zero_shot(torch.randn(2, 48), torch.empty(0, 48))
    # a TypeError where annotations are checked at run time
    with pytest.raises(
        (InputError, TypeError),
        match=r"(?s)48.*12|of 48 .* and 12 .* dimensions cannot be compared",
    ):
        model.zero_shot(torch.randn(2, 48), torch.randn(1, 12))
    with pytest.raises(InputError, match="text width 48 is not a multiple of its 5 heads"):
        TextTower(vocabulary=9, context=4, width=48, depth=1, num_heads=5, embedding=8)


def test_no_image_gives_no_probabilities(model):
    assert model.zero_shot(torch.empty(0, 48), torch.randn(3, 48)).shape == (0, 3)


def test_classify_compares_images_with_prompts(model, expected, monkeypatch):
    tokens = torch.from_numpy(expected["token_ids"])
    monkeypatch.setattr(
        "crate_interp.models.clipa.tokenize", lambda texts, context: tokens[: len(texts)]
    )
    torch.manual_seed(0)
    torch.nn.init.normal_(model.text.projection.weight)
    images = torch.from_numpy(expected["input_nchw"])
    found = model.classify(images, ["a dog", "a cat"])
    assert isinstance(model, CrateClip)
    wanted = model.zero_shot(model.encode_image(images), model.encode_text(tokens[:2]))
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("texts", [[], "a dog"])
def test_tokenize_wants_a_list_of_texts(texts):
    with pytest.raises(InputError, match="expected a list of one text or more"):
        tokenize(texts)


def test_tokenize_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r'pip install "crate-interp\[clip\]"'):
        tokenize(["a dog"])


class _OpenClip:
    """Stands for open_clip, whose tokenizer needs a download."""

    def __init__(self, error=None):
        self.error = error

    def get_tokenizer(self, name, context_length):
        if self.error:
            raise self.error
        assert name == "ViT-L-14-CLIPA"
        return lambda texts: torch.zeros(len(texts), context_length, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("offline"), r"bert-base-uncased of huggingface\.co, is not on this machine"),
        (ModuleNotFoundError("No module named 'transformers'"), "transformers.*pip install"),
    ],
)
def test_tokenize_without_its_vocabulary_says_so(error, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", _OpenClip(error))
    with pytest.raises(InputError, match=message):
        tokenize(["a dog"])


def test_tokenize_gives_a_row_a_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", _OpenClip())
    assert tokenize(["a dog", "a cat"], 8).shape == (2, 8)


def test_numbers_of_the_text_tower_that_are_none_are_refused_but_of_its_projection_told(
    weights, sizes, tmp_path, caplog
):
    path = tmp_path / "other.pth"
    torch.save(weights, path)  # as the reference has it: 5 of the projection were never set
    load_clip(ARCHITECTURE, path, text_num_heads=2, **sizes)
    assert f"{path}: 'text_projection': 5 of 2304 weights are NaN or infinite" in caplog.text
    weights["positional_embedding"][0, 0] = float("nan")
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"other\.pth: 'positional_embedding': 1 of"):
        load_clip(ARCHITECTURE, path, text_num_heads=2, **sizes)
