from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Mlp

from crate_interp.models import fast_inference, inference_precision, onednn

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN"
)


@pytest.fixture
def anywhere(monkeypatch):
    """As on a processor where oneDNN is the faster one."""
    monkeypatch.setattr(onednn, "_is_faster", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(17, 48), (2, 17, 48), (0, 17, 48)])
@torch.no_grad()
def test_fast_inference_is_linear(anywhere, shape, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 33, bias=bias)
    values = torch.randn(shape)
    expected = F.linear(
        values.double(), layer.weight.double(), layer.bias.double() if bias else None
    )
    with fast_inference():
        torch.testing.assert_close(layer(values), expected.float())
        torch.testing.assert_close(
            F.linear(values, weight=layer.weight, bias=layer.bias), expected.float()
        )


@torch.no_grad()
def test_fast_inference_takes_a_transposed_weight(anywhere):
    torch.manual_seed(0)
    values, dictionary = torch.randn(2, 17, 48), torch.randn(48, 192)
    with fast_inference():
        torch.testing.assert_close(F.linear(values, dictionary.t()), values @ dictionary)


@torch.no_grad()
def test_fast_inference_leaves_other_types_alone(anywhere):
    values, weight = torch.randn(5, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    with fast_inference():
        assert torch.equal(F.linear(values, weight), values @ weight.t())


def test_fast_inference_is_nothing_where_it_does_not_pay(monkeypatch):
    monkeypatch.setattr(onednn, "_is_faster", lambda: False)
    with fast_inference() as mode:
        assert mode is None


@pytest.mark.parametrize("tokens", [1024, 1100, 30])
@torch.no_grad()
def test_fast_inference_attends_as_float64_does(anywhere, tokens):
    torch.manual_seed(0)
    projected = torch.randn(2, tokens, 3, 2, 8).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(*projected.double()).float()
    with fast_inference():
        out = F.scaled_dot_product_attention(*projected, dropout_p=0.0)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_fast_inference_leaves_masked_attention_alone(anywhere):
    torch.manual_seed(0)
    values = torch.randn(1, 1, 1024, 8)
    expected = F.scaled_dot_product_attention(values, values, values, is_causal=True)
    with fast_inference():
        out = F.scaled_dot_product_attention(values, values, values, is_causal=True)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16_attention", "bfloat16"])
@torch.no_grad()
def test_inference_precision_is_that_of_the_products(precision):
    layer, values = torch.nn.Linear(8, 8), torch.randn(2, 8)
    expected = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with inference_precision(precision, layer):
        assert layer(values).dtype is expected
    assert layer(values).dtype is torch.float32


@pytest.mark.skipif(not onednn.has_fast_bfloat16(), reason="no processor with bfloat16")
@pytest.mark.parametrize("tokens", [1100, 1024, 30])
@torch.no_grad()
def test_attention_in_bfloat16_keeps_large_scores_apart(anywhere, tokens):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, tokens, 16).unbind()
    # A large mean of keys and values and large scores: what plain bfloat16 loses its bits to.
    query, key, value = 3 * query, 2 * key + 10, value + 100
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    with inference_precision("bfloat16_attention", torch.nn.Linear(1, 1)):
        out = F.scaled_dot_product_attention(query, key, value)
    assert out.dtype is torch.float32
    error = (out - expected).square().mean().sqrt()
    assert error < (0.015 if tokens >= 1024 else 1e-4)
    rounded = (part.bfloat16() for part in (query, key, value))
    plain = F.scaled_dot_product_attention(*rounded) - expected
    assert plain.square().mean().sqrt() > 10 * error


def _mlp(**options):
    torch.manual_seed(0)
    return Mlp(8, 32, **options).eval()


@pytest.mark.parametrize("hooked", ["nothing", "fc1", "act"])
@torch.no_grad()
def test_gelu_with_the_layer_before_it_is_what_both_are(anywhere, hooked):
    model, values = _mlp(), torch.randn(2, 5, 8)
    expected = model.double()(values.double()).float()
    hidden = model.fc1(values.double()).float()
    model.float()
    seen = []
    if hooked == "fc1":
        model.fc1.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    if hooked == "act":
        model.act.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with inference_precision("float32", model):
        torch.testing.assert_close(model(values), expected)
    for found in seen:
        torch.testing.assert_close(found, hidden)


@torch.no_grad()
def test_only_the_exact_gelu_is_joined_with_the_layer_before_it(anywhere):
    values = torch.randn(5, 8)
    for act in (torch.nn.ReLU, partial(torch.nn.GELU, approximate="tanh")):
        model = _mlp(act_layer=act)
        expected = model(values)
        with inference_precision("float32", model):
            torch.testing.assert_close(model(values), expected)
