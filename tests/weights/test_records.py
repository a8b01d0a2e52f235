"""What a weight file says of its model, and what a model may be asked to be: sizes alone."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights import (
    ModelRecord,
    create_backbone,
    load_backbone,
    resolve_name,
    write_safetensors,
)

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "img_size": 8}
NAME = "crate_alpha_tiny_patch16_224"


@pytest.fixture
def own(tmp_path):
    """Write a tiny file of ours whose record is changed, or whose tensors are."""

    def make(tensors=None, **changes) -> Path:
        model = create_backbone(resolve_name(NAME), num_classes=3, **TINY)
        record = ModelRecord(NAME, TINY, 3, (0.5,) * 3, (0.5,) * 3).to_metadata() | changes
        path = tmp_path / "own.safetensors"
        write_safetensors(path, {**model.state_dict(), **(tensors or {})}, record)
        return path

    return make


def test_untouched_file_loads(own):
    assert load_backbone(own()).num_classes == 3


@pytest.mark.parametrize(
    "args",
    [
        {"checkpoint_path": "/etc/passwd"},
        {"pretrained_cfg": {"file": "/etc/passwd"}},
        {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9"}},
        {"cache_dir": "/tmp"},
        {"features_only": True},
        {"norm_layer": "os.system"},
        {"act_layer": "gelu"},
        {"patch_size": 0},
        {"patch_size": [4, 4, 4]},
        {"img_size": "8"},
        {"embed_dim": 0},
        {"embed_dim": -16},
        {"embed_dim": 16.5},
        {"embed_dim": True},
        {"embed_dim": 10**400},
        {"depth": 10**9},
        {"num_heads": None},
        {"mlp_ratio": float("1e999")},
        {"drop_rate": 2},
        {"qkv_bias": "yes"},
        {"global_pool": "sum"},
        {"global_pool": ["avg"]},
        {"": 1},
    ],
    ids=str,
)
def test_arguments_that_are_no_sizes_are_refused(args, own):
    (name,) = args
    with pytest.raises(InputError, match=f"cannot be made with '{name}' .*: expected") as caught:
        load_backbone(NAME, pretrained=False, **args)
    assert len(str(caught.value)) < 300
    if "Infinity" not in json.dumps(args):
        path = own(model_args=json.dumps(args))
        with pytest.raises(CheckpointError, match=rf"own\.safetensors: .*with '{name}' ") as caught:
            load_backbone(path)
        assert len(str(caught.value)) <= 500


def test_classes_and_functions_are_for_pythons_callers(own):
    arguments = TINY | {"norm_layer": nn.LayerNorm, "act_layer": nn.GELU}
    assert load_backbone("vit_tiny_patch16_224", pretrained=False, **arguments).embed_dim == 16
    with pytest.raises(CheckpointError, match="not those of crate_interp"):
        load_backbone(own(model_args='{"norm_layer": 1}'))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_args": '{"a":' * 100_000}, "model_args: not a JSON"),
        ({"model_args": "[1]"}, "model_args: expected"),
        ({"model_args": "{}\ud7ff"}, "model_args: not a JSON"),
        ({"num_classes": "-1"}, "'num_classes' -1: expected a whole number from 0"),
        ({"num_classes": "1" * 400}, "'num_classes' an integer of about 397 digits"),
        ({"mean": "[0.5, 0.5]"}, "mean: expected array of length 3"),
        ({"mean": "[0.5, 0.5, NaN]"}, "mean: not a JSON"),
        ({"mean": "[0.5, 0.5, 1e300]"}, "mean: expected three numbers"),
        ({"std": "[0.5, 0, 0.5]"}, "std: expected three numbers above 0"),
        ({"std": '"0.5"'}, "std: expected"),
        ({"model": "no_such_model"}, "unknown model 'no_such_model'"),
        ({"model": "x" * 5000}, "unknown model"),
        ({"model": "resnet50"}, "resnet50"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_records_that_are_none_are_refused(changes, message, own):
    path = own(**changes)
    with pytest.raises(InputError, match=message) as caught:
        load_backbone(path)
    assert "own.safetensors: " in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_record_of_a_model_far_larger_than_its_file_is_refused_at_once(own):
    path = own(model_args=json.dumps(TINY | {"embed_dim": 8192, "depth": 8}))
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"own\.safetensors: expected the \d{9,} weights"):
        load_backbone(path)
    assert time.perf_counter() - started < 20


def test_model_beyond_any_memory_is_refused():
    with pytest.raises(InputError, match=r"would have \d{12} parameters"):
        load_backbone("vit_tiny_patch16_224", pretrained=False, embed_dim=16380, depth=256)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["npz", "pth", "safetensors"])
def test_weights_that_are_no_numbers_are_refused_unless_allowed(kind, value, own, tmp_path):
    model = load_backbone(own())
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    weights["blocks.0.norm1.weight"][3] = value
    path = tmp_path / f"w.{kind}"
    if kind == "npz":
        np.savez(path, **{key: tensor.numpy() for key, tensor in weights.items()})
    elif kind == "pth":
        torch.save(weights, path)
    else:
        write_safetensors(path, weights, {})
    with pytest.raises(CheckpointError, match=rf"w\.{kind}: '.*norm1.*weight': 1 of 16 weights"):
        load_backbone(NAME, path, **TINY)
    taken = load_backbone(NAME, path, allow_nonfinite=True, **TINY)
    assert not taken.blocks[0].norm1.weight.isfinite().all()


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_weights_of_another_type_than_numbers_of_weights_are_refused(dtype, own):
    path = own({"blocks.0.norm1.weight": torch.ones(16).to(dtype)})
    with pytest.raises(CheckpointError, match=r"own\.safetensors: .*expected float16.*found torch"):
        load_backbone(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_every_floating_type_are_taken(dtype, own):
    path = own({"blocks.0.norm1.weight": torch.full((16,), 0.5).to(dtype)})
    assert torch.equal(load_backbone(path).blocks[0].norm1.weight, torch.full((16,), 0.5))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (3, 0), (3, 16, 1), (0, 16)], ids=str)
@pytest.mark.parametrize(
    "key", ["head.weight", "pos_embed", "patch_embed.proj.weight", "cls_token", "head.bias"]
)
def test_tensors_of_another_shape_are_named(key, shape, own):
    path = own({key: torch.zeros(shape)})
    if (key, shape) != ("head.bias", (3,)):
        with pytest.raises(CheckpointError, match=r"own\.safetensors: "):
            load_backbone(path)
    with pytest.raises(CheckpointError, match=r"own\.safetensors: "):
        load_backbone("vit_T16", path, **TINY)


def test_archive_that_says_it_is_far_larger_than_its_file_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros(100_000_000, np.uint8))
    with pytest.raises(
        CheckpointError, match=r"w\.npz: expected at most .* bytes of arrays, found"
    ):
        load_backbone(NAME, tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("weights", "expected"), [("random", "random"), (Path("random"), "as a path")]
)
def test_random_weights_are_the_same_each_time_and_leave_the_callers_generator(weights, expected):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_backbone(NAME, weights, **TINY)
    assert torch.equal(torch.get_rng_state(), before), expected
    torch.manual_seed(0)
    second = load_backbone(NAME, pretrained=False, **TINY)
    for key, value in second.state_dict().items():
        assert torch.equal(first.state_dict()[key], value)


def test_random_weights_of_a_file_are_refused(own):
    with pytest.raises(InputError, match="holds its own weights; it cannot take random ones"):
        load_backbone(own(), "random")


def test_mean_and_deviation_are_the_callers_then_the_files_then_the_models(own):
    path = own()
    assert load_backbone(path).pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    given = load_backbone(path, mean=[0.1, 0.2, 0.3], std=(1, 2, 3)).pretrained_cfg
    assert (given["mean"], given["std"]) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    for wrong in ({"mean": [0.1]}, {"std": (1, 0, 1)}, {"std": "abc"}, {"mean": [0, 0, None]}):
        with pytest.raises(InputError, match="expected three numbers"):
            load_backbone(path, **wrong)


def test_sizes_that_do_not_go_together_are_told_with_the_file(own):
    with pytest.raises(CheckpointError, match=r"own\.safetensors: .* cannot be made with .*17"):
        load_backbone(NAME, own(), embed_dim=17)


def test_models_of_records_without_a_tag_have_the_architectures_own_sizes(tmp_path):
    # The first tag of crate_base_patch8_224 has 6 heads, the architecture 12.
    sizes = TINY | {"embed_dim": 24}
    del sizes["num_heads"]
    model = load_backbone("crate_base_patch8_224", pretrained=False, **sizes)
    record = ModelRecord("crate_base_patch8_224", sizes, 0, (0.5,) * 3, (0.5,) * 3)
    write_safetensors(tmp_path / "w.safetensors", model.state_dict(), record.to_metadata())
    assert load_backbone(tmp_path / "w.safetensors").blocks[0].attn.num_heads == 12
