import pytest
import torch
import torch.nn.functional as F

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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_inference_precision_is_that_of_the_products(precision):
    layer, values = torch.nn.Linear(8, 8), torch.randn(2, 8)
    with inference_precision(precision, torch.device("cpu")):
        assert layer(values).dtype is getattr(torch, precision)
    assert layer(values).dtype is torch.float32
