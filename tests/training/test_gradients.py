"""One step of each family against plain functions in float64, written from the equations alone."""

import pytest
import torch
import torch.nn.functional as F

from crate_interp.training import Recipe
from crate_interp.training.objectives.classification import build_loss
from crate_interp.training.setup import build_model

PATCH, HEADS, DEPTH, WIDTH, CLASSES = 8, 3, 2, 24, 5
ETA = LAMBDA = 0.1
SIZES = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH}


def norm(w, name, x, eps):
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend(query, key, value):
    """Each head by itself; (B, N, D) to (B, N, D)."""
    size = query.shape[-1] // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / size**0.5
        exponentials = (scores - scores.amax(dim=-1, keepdim=True)).exp()
        weights = exponentials / exponentials.sum(dim=-1, keepdim=True)
        heads.append(weights @ value[..., part])
    return torch.cat(heads, dim=-1)


def patches(images, order):
    """Pixels of each patch, (B, N, p p 3), flattened in an order of (row, column, colour)."""
    cells = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, c, h, w, p1, p2)
    names = dict(zip("chwpq", (1, 2, 3, 4, 5), strict=True))
    return cells.permute(0, *(names[name] for name in "hw" + order)).flatten(3).flatten(1, 2)


def with_class_token(w, tokens):
    first = w["cls_token"].expand(len(tokens), -1, -1)
    return torch.cat([first, tokens], dim=1) + w["pos_embed"]


def convolved(w, images):
    kernel = w["patch_embed.proj.weight"]
    return patches(images, "cpq") @ kernel.flatten(1).T + w["patch_embed.proj.bias"]


def crate(w, images):
    pixels = norm(w, "patch_embed.proj.norm", patches(images, "pqc"), 1e-5)
    tokens = pixels @ w["patch_embed.proj.linear.weight"].T + w["patch_embed.proj.linear.bias"]
    z = with_class_token(w, norm(w, "patch_embed.norm", tokens, 1e-5))
    for block in (f"blocks.{number}." for number in range(DEPTH)):
        subspace = norm(w, f"{block}norm1", z, 1e-5) @ w[f"{block}attn.qkv.weight"].T
        out = attend(subspace, subspace, subspace)
        z = z + out @ w[f"{block}attn.proj.weight"].T + w[f"{block}attn.proj.bias"]
        x = norm(w, f"{block}norm2", z, 1e-5)
        D = w[f"{block}mlp.weight"]
        residual = x - x @ D.T
        z = torch.clamp(x + ETA * residual @ D - ETA * LAMBDA, min=0)
    return norm(w, "fc_norm", z[:, 0], 1e-5) @ w["head.weight"].T + w["head.bias"]


def crate_alpha(w, images):
    z = with_class_token(w, convolved(w, images))
    for block in (f"blocks.{number}." for number in range(DEPTH)):
        subspace = norm(w, f"{block}norm1", z, 1e-6) @ w[f"{block}attn.qkv.weight"].T
        z = z + attend(subspace, subspace, subspace) @ w[f"{block}attn.proj.weight"].T
        x = norm(w, f"{block}norm2", z, 1e-6)
        D, D1 = w[f"{block}mlp.D"], w[f"{block}mlp.D1"]
        first = torch.clamp(ETA * x @ D - ETA * LAMBDA, min=0)
        second = torch.clamp(first - ETA * (first @ D.T - x) @ D - ETA * LAMBDA, min=0)
        z = z + second @ D1.T
    return norm(w, "fc_norm", z[:, 0], 1e-6) @ w["head.weight"].T + w["head.bias"]


def vit(w, images):
    z = with_class_token(w, convolved(w, images))
    for block in (f"blocks.{number}." for number in range(DEPTH)):
        x = norm(w, f"{block}norm1", z, 1e-6)
        joint = x @ w[f"{block}attn.qkv.weight"].T + w[f"{block}attn.qkv.bias"]
        out = attend(*joint.split(WIDTH, dim=-1))
        z = z + out @ w[f"{block}attn.proj.weight"].T + w[f"{block}attn.proj.bias"]
        x = norm(w, f"{block}norm2", z, 1e-6)
        hidden = x @ w[f"{block}mlp.fc1.weight"].T + w[f"{block}mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        z = z + hidden @ w[f"{block}mlp.fc2.weight"].T + w[f"{block}mlp.fc2.bias"]
    return norm(w, "norm", z, 1e-6)[:, 0] @ w["head.weight"].T + w["head.bias"]


def cross_entropy(logits, labels, smoothing):
    targets = torch.full_like(logits, smoothing / CLASSES)
    targets[range(len(labels)), labels] += 1 - smoothing
    shifted = logits - logits.detach().amax(dim=1, keepdim=True)
    log_probability = shifted - shifted.exp().sum(dim=1, keepdim=True).log()
    return -(targets * log_probability).sum(dim=1).mean()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("crate_tiny_patch16_224", crate),
        ("crate_alpha_tiny_patch16_224", crate_alpha),
        ("vit_tiny_patch16_224", vit),
    ],
)
@pytest.mark.parametrize(
    ("number_type", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "eager"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_step_is_that_of_the_plain_equations(name, plain, number_type, tolerance, fused, smoothing):
    recipe = Recipe(model=name, model_args=SIZES, image_size=24, steps=1, label_smoothing=smoothing)
    torch.manual_seed(0)
    model = build_model(recipe, CLASSES)
    with torch.no_grad():  # away from what is zero or alike at the start
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model = model.to(number_type)
    for block in model.blocks:
        block.attn.fused_attn = fused
    images, labels = torch.randn(4, 3, 24, 24, dtype=number_type), torch.tensor([0, 3, 4, 3])
    loss = build_loss(recipe)(model(images), labels)
    loss.backward()

    w = {key: value.detach().double() for key, value in model.state_dict().items()}
    for value in w.values():
        value.requires_grad_(True)
    expected = cross_entropy(plain(w, images.double()), labels, smoothing)
    expected.backward()
    assert abs(loss.item() - expected.item()) <= tolerance * expected.item()
    assert w.keys() == dict(model.named_parameters()).keys()
    for key, parameter in model.named_parameters():
        exact = w[key].grad
        assert exact.abs().max() > 0, key
        assert (parameter.grad - exact).abs().max() <= tolerance * exact.abs().max(), key


def test_plain_parts_are_those_of_torch():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    w = {
        "patch_embed.proj.weight": torch.randn(7, 3, PATCH, PATCH, dtype=torch.float64),
        "patch_embed.proj.bias": torch.randn(7, dtype=torch.float64),
    }
    expected = F.conv2d(images, *w.values(), stride=PATCH).flatten(2).transpose(1, 2)
    torch.testing.assert_close(convolved(w, images), expected)
    query, key, value = torch.randn(3, 2, 5, WIDTH, dtype=torch.float64)
    heads = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(query, key, value), expected)
