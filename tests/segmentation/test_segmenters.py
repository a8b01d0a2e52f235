"""The table of segmenters: each gives what its algorithm gives, on the patch grid."""

import numpy as np
import pytest
from PIL import Image

from crate_interp.cli import main
from crate_interp.commands.segment import Segment
from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import attention_masks, maskcut, principal_component, tokencut
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

TAU = 0.8  # the demo ViT's keys are alike, the object's a little less


@pytest.fixture(scope="module")
def observer():
    return Observer(load_backbone("demo_vit"), size=48)


@pytest.fixture
def rgb():
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    return rgb


def recorded(observer, segmenter, rgb):
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    return activations, observer.geometry(rgb.shape[:2])


def of_features(observer, rgb):
    return observer.activations([rgb], ["key"], [-1]).patch_features("key")[0].float()


def by_algorithm(name, observer, rgb, grid):
    if name == "attention":
        rows = observer.activations([rgb], ["cls_attention"], [-1])["cls_attention", -1][0]
        return attention_masks(rows[:, 1:].mean(dim=0, keepdim=True)).view(1, *grid)
    features = of_features(observer, rgb)
    if name == "maskcut":
        masks = maskcut(features, grid, tau=TAU).masks
    elif name == "tokencut":
        masks = tokencut(features, grid, tau=TAU).mask[None]
    else:
        masks = principal_component(features, grid).mask[None]
    return masks[masks.any(dim=(1, 2))]


def test_the_table_has_what_the_package_comes_with():
    assert set(SEGMENTERS.names()) >= {"maskcut", "tokencut", "attention", "pca"}


@pytest.mark.parametrize("name", ["maskcut", "tokencut", "attention", "pca"])
def test_a_segmenter_gives_what_its_algorithm_gives(name, observer, rgb):
    options = {"tau": TAU} if name.endswith("cut") else {}
    segmenter = SEGMENTERS[name](**options).for_model(observer.model)
    activations, geometry = recorded(observer, segmenter, rgb)
    instances = segmenter(activations, geometry)
    assert len(instances)
    assert instances.frame == "grid"
    expected = by_algorithm(name, observer, rgb, geometry.grid_hw)
    np.testing.assert_array_equal(instances.masks, expected.numpy())
    (together,) = segmenter.together([activations], geometry)
    np.testing.assert_array_equal(together.masks, instances.masks)


@pytest.mark.parametrize("name", ["maskcut", "tokencut", "pca"])
def test_a_constant_image_has_no_mask(name, observer):
    rgb = np.full((60, 80, 3), 90, np.uint8)
    segmenter = SEGMENTERS[name]().for_model(observer.model)
    activations, geometry = recorded(observer, segmenter, rgb)
    constant = {key: tensor[:, :1].expand(tensor.shape) for key, tensor in activations.items()}
    activations.tensors.clear()
    activations.tensors.update(constant)
    assert len(segmenter(activations, geometry)) == 0


def test_the_masks_of_all_heads_score_their_share_of_the_attention(observer, rgb):
    segmenter = SEGMENTERS["attention"](head="all", keep=1.0)
    instances = segmenter(*recorded(observer, segmenter, rgb))
    assert len(instances) == 4
    assert instances.masks.all()
    np.testing.assert_allclose(instances.scores, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nocut", {}, "method: expected one of .*maskcut.*, found 'nocut'"),
        ("maskcut", {"block": 9}, "block 9 is out of range"),
        ("pca", {"feature": "codes"}, "no site codes"),
    ],
)
def test_what_there_is_not_is_refused(name, options, message, observer):
    with pytest.raises(InputError, match=message):
        SEGMENTERS[name](**options).for_model(observer.model)


@pytest.mark.parametrize("name", SEGMENTERS.names())
def test_no_option_of_a_segmenter_is_one_of_the_command(name):
    assert Segment.kind_for(["--method", name]).title == name


def test_a_segmenter_of_attention_refuses_options_for_features(tmp_path, rgb, capsys):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    options = ["--model", "demo_vit", "--method", "attention", "--debias"]
    assert main(["segment", "--images", str(tmp_path), *options]) == 2
    assert "attention reads no feature of patches" in capsys.readouterr().err
