"""A layout is an entry of a table: one call, and its files load by name. No work is done twice."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights import Layout, Rule, checkpoint, create, load_backbone, register_layout
from crate_interp.weights.layout import LAYOUTS

ALPHA = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
NAME = "vit_tiny_patch16_224"


@pytest.fixture
def table(monkeypatch):
    """The table, which loses again what a test adds to it."""
    monkeypatch.setattr("crate_interp.weights.layout.LAYOUTS", dict(LAYOUTS))


def foreign(path, model):
    """Write a model under keys of another program, all signs turned."""
    tensors = {f"net/{key}": -value for key, value in model.state_dict().items()}
    save_file(tensors, path)


def test_a_registered_layout_is_recognised_renamed_and_fitted(table, sizes, tmp_path):
    model = timm.create_model(NAME, num_classes=4, **sizes).eval()
    foreign(tmp_path / "net.safetensors", model)
    with pytest.raises(CheckpointError, match=r"net\.safetensors: converted by timm weights"):
        load_backbone(NAME, tmp_path / "net.safetensors", **sizes)
    rule = Rule("net/{any}", "{any}", torch.neg)
    register_layout(Layout("Net", ("net/blocks.{i}.norm1.weight",), (rule,)))
    again = load_backbone(NAME, tmp_path / "net.safetensors", **sizes)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    larger = load_backbone(NAME, tmp_path / "net.safetensors", **{**sizes, "img_size": 48})
    assert larger.pos_embed.shape == (1, 37, 48)
    with pytest.raises(CheckpointError, match=r"net/blocks.0.attn.proj.bias: expected \(24,\)"):
        load_backbone(NAME, tmp_path / "net.safetensors", **{**sizes, "embed_dim": 24})


@pytest.mark.parametrize("square", [False, True])
def test_a_layout_says_whether_its_grids_are_square(square, table, sizes, tmp_path):
    wide = {**sizes, "img_size": (16, 64)}
    model = timm.create_model(NAME, num_classes=0, **wide)
    foreign(tmp_path / "net.safetensors", model)
    rule = Rule("net/{any}", "{any}", torch.neg)
    register_layout(Layout("Net", ("net/norm.weight",), (rule,), square_grids=square))
    again = load_backbone(NAME, tmp_path / "net.safetensors", **wide)
    assert torch.equal(again.pos_embed, model.pos_embed) != square


@pytest.mark.parametrize(
    "layout", [None, "Net", Layout("Net", (), (Rule("a", "b"),)), Layout("Net", ("a",), ())]
)
def test_what_is_no_layout_is_refused(layout):
    before = dict(LAYOUTS)
    with pytest.raises((InputError, TypeError), match="Layout"):
        register_layout(layout)
    assert before == LAYOUTS


def test_a_load_renames_once_and_plans_once_on_meta(monkeypatch, reference, sizes):
    calls = []
    for module, name in ((checkpoint, "rename"), (create.timm, "create_model")):
        original = getattr(module, name)

        def counted(*args, _call=original, _name=name, **kwargs):
            on_meta = torch.empty(0).is_meta
            calls.append(f"{_name} on meta" if on_meta else _name)
            return _call(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    load_backbone("demo")
    load_backbone("crate_alpha_B8", reference / ALPHA, **sizes)
    assert sorted(calls) == ["create_model"] * 2 + ["create_model on meta"] * 2 + ["rename"] * 2


@pytest.mark.parametrize("value", ["Layout", "nothing"])
def test_an_installed_package_adds_a_layout(value, table, sizes, tmp_path, monkeypatch):
    package = tmp_path / "net_layout"
    (package / "net_layout-1.dist-info").mkdir(parents=True)
    (package / "net_layout-1.dist-info" / "METADATA").write_text("Name: net-layout\nVersion: 1\n")
    entry = f"[crate_interp.layouts]\nnet = net_layout_{value}:{value}\n"
    (package / "net_layout-1.dist-info" / "entry_points.txt").write_text(entry)
    (package / f"net_layout_{value}.py").write_text(
        "import crate_interp.weights as weights\n"
        'rules = (weights.Rule("net/{any}", "{any}", lambda tensor: -tensor),)\n'
        'Layout = weights.Layout("Net", ("net/norm.weight",), rules)\n'
        "nothing = None\n"
    )
    monkeypatch.syspath_prepend(package)
    model = timm.create_model(NAME, num_classes=0, **sizes)
    foreign(tmp_path / "net.safetensors", model)
    if value == "nothing":
        with pytest.raises(InputError, match=r"layouts net of net-layout: expected a Layout"):
            load_backbone(NAME, tmp_path / "net.safetensors", **sizes)
    else:
        again = load_backbone(NAME, tmp_path / "net.safetensors", **sizes)
        assert torch.equal(again.pos_embed, model.pos_embed)
