"""The penalty on sparse codes: its value and gradient by hand, and a run with it."""

import pytest
import torch
import torch.nn.functional as F

from crate_interp.errors import InputError
from crate_interp.hooks import record
from crate_interp.training import Recipe, train
from crate_interp.training.checkpoint_files import read_checkpoint
from crate_interp.training.objectives.classification import Classification


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def codes_by_hand(model, images):
    """Codes of all blocks by ODL's two steps or ISTA's one, from what enters `mlp`."""
    entered = []
    handles = [
        block.norm2.register_forward_hook(lambda _, __, output: entered.append(output))
        for block in model.blocks
    ]
    logits = model(images)
    for handle in handles:
        handle.remove()
    codes = []
    for block, x in zip(model.blocks, entered, strict=True):
        if hasattr(block.mlp, "D"):
            first = torch.relu(0.1 * x @ block.mlp.D - 0.01)
            residual = first @ block.mlp.D.T - x
            codes.append(torch.relu(first - 0.1 * residual @ block.mlp.D - 0.01))
        else:
            D = block.mlp.weight
            codes.append(torch.relu(x + 0.1 * (x - x @ D.T) @ D - 0.01))
    return logits, codes


@pytest.mark.parametrize("name", ["crate_alpha_demo", "crate_demo"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_penalty_is_the_mean_size_of_the_codes_and_has_its_gradient(
    name, checkpointing, settings
):
    torch.manual_seed(0)
    objective = Classification(Recipe(**{**settings, "model": name, "code_penalty": 2.5}))
    model = objective.build_model().double().train()
    images, targets = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3, 7])
    model.set_grad_checkpointing(checkpointing)
    loss = objective.loss(model, images, targets)
    found = torch.autograd.grad(loss, list(model.parameters()))
    assert hook_count(model) == 0
    model.set_grad_checkpointing(False)
    logits, codes = codes_by_hand(model, images)
    size = sum(values.abs().mean() for values in codes) / len(codes)
    expected = F.cross_entropy(logits, targets) + 2.5 * size
    torch.testing.assert_close(loss.double(), expected, rtol=0, atol=1e-6)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_no_penalty_is_bit_equal_and_hooks_nothing(settings, tmp_path):
    weights = []
    for name, changes in (("without", {}), ("zero", {"code_penalty": 0.0})):
        folder = tmp_path / name
        folder.mkdir()
        train(Recipe(**{**settings, **changes, "save_every": 8}), folder)
        weights.append(read_checkpoint(folder / "checkpoints" / "step-00000008.pt")["model"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    objective = Classification(Recipe(**settings))
    model = objective.build_model()
    seen = []
    model.blocks[0].mlp.codes.register_forward_hook(lambda module, _, __: seen.append(module))
    objective.loss(model, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert [len(module._forward_hooks) for module in seen] == [1]  # the test's own


def test_a_run_with_the_penalty_ends_with_smaller_codes(settings, tmp_path):
    sizes = []
    for penalty in (0.0, 10.0):
        folder = tmp_path / str(penalty)
        folder.mkdir()
        recipe = Recipe(**{**settings, "code_penalty": penalty, "learning_rate": 1e-2})
        train(recipe, folder)
        model = Classification(recipe).build_model().eval()
        content = read_checkpoint(folder / "checkpoints" / "step-00000008.pt")
        model.load_state_dict(content["model"])
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with record(model, ["codes"], [0, 1]) as recorder, torch.no_grad():
            model(images)
        codes = [recorder.activations["codes", block] for block in (0, 1)]
        sizes.append(sum(float(values.mean()) for values in codes))
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_demo"}, "expected a model with sparse codes, .* found a VisionTransformer"),
        (
            {"model": "crate_demo", "model_args": {"embed_dim": 32, "depth": 2, "step": "mlp"}},
            "found a Crate without at block 0",
        ),
        ({"compile": True}, "code_penalty: expected compile false"),
    ],
)
def test_a_model_without_codes_or_compiled_is_refused(changes, message, settings, tmp_path):
    with pytest.raises(InputError, match=message):
        train(Recipe(**{**settings, "code_penalty": 1.0, **changes}), tmp_path)


@pytest.mark.parametrize("value", [-0.1, 101.0])
def test_a_penalty_out_of_range_is_refused(value, settings):
    with pytest.raises(InputError, match="code_penalty: expected"):
        Recipe(**settings, code_penalty=value)


def test_a_penalty_is_for_classification():
    with pytest.raises(InputError, match="code_penalty: is for the task classification"):
        Recipe(model="demo", steps=1, task="reconstruction", code_penalty=1.0)
