import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from crate_interp import ImageGeometry, InputError, MaskCut, any_resolution, maskcut, record
from crate_interp.data import draw_scene, preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "num_classes": 0}


@pytest.fixture(scope="module")
def scene():
    return draw_scene(np.random.default_rng(3), (96, 120)).image


def make(architecture="crate_alpha_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    return timm.create_model(architecture, **(TINY | {"patch_size": 8} | arguments)).eval()


@pytest.mark.parametrize(
    ("architecture", "feature"),
    [("crate_alpha_tiny_patch16_224", "subspace"), ("vit_tiny_patch16_224", "key")],
)
def test_predictor_is_its_parts_by_hand(scene, architecture, feature):
    model = make(architecture)
    instances = MaskCut(model, size=96, tau=0.4)(scene)

    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    pixels = preprocess(scene, (96, 96), mean, std)[None]
    with torch.no_grad(), any_resolution(model), record(model, [feature]) as recorder:
        model(pixels)
    features = recorder.activations.patch_features(feature)[0]
    masks = maskcut(features, (12, 12), tau=0.4).masks.numpy()
    masks = masks[masks.any(axis=(1, 2))].repeat(8, axis=1).repeat(8, axis=2)
    geometry = ImageGeometry((96, 120), (96, 96), (8, 8))
    assert len(masks) > 0
    np.testing.assert_array_equal(instances.masks, geometry.input_to_original(masks))
    assert instances.frame == "original"


def test_a_file_a_pillow_image_and_an_array_are_alike(scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "scene.png")
    predictor = MaskCut(make(), size=96, tau=0.4)
    expected = predictor(scene).masks
    np.testing.assert_array_equal(predictor(tmp_path / "scene.png").masks, expected)
    np.testing.assert_array_equal(predictor(str(tmp_path / "scene.png")).masks, expected)
    np.testing.assert_array_equal(predictor(Image.fromarray(scene)).masks, expected)


def test_an_image_without_a_mask_is_named_in_the_log(tmp_path, caplog):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    assert not len(MaskCut(make(), size=32)(tmp_path / "red.png"))
    assert f"{tmp_path / 'red.png'}: constant image: all pairs" in caplog.text


def test_a_batch_has_the_features_of_its_images(scene):
    predictor = MaskCut(make(), size=64)
    other = scene[::-1, :80].copy()
    together = predictor.features([scene, other])
    torch.testing.assert_close(together[0], predictor.features([scene])[0])
    torch.testing.assert_close(together[1], predictor.features([other])[0])


def test_a_smaller_stride_cuts_a_denser_grid(scene):
    predictor = MaskCut(make(), size=64, stride=4, tau=0.4)
    assert predictor.features([scene]).shape == (1, 48, 15 * 15)
    assert predictor(scene).masks.shape[1:] == scene.shape[:2]


@pytest.mark.parametrize(("patch_size", "expected"), [(8, 480), (14, 476)])
def test_the_default_size_is_480_in_whole_patches(patch_size, expected):
    model = make(patch_size=patch_size, img_size=2 * patch_size)
    assert MaskCut(model).size == expected


def test_the_default_size_of_the_shipped_model_is_its_own_test_size():
    model = timm.create_model("crate_alpha_demo")
    assert MaskCut(model).size == model.pretrained_cfg["test_input_size"][-1]


def test_bfloat16_finds_nearly_the_same_features(scene):
    model = make()
    exact = MaskCut(model, size=64).features([scene])
    half = MaskCut(model, size=64, precision="bfloat16").features([scene])
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, half, dim=1).min() > 0.99


def test_a_crf_moves_masks_to_the_edges_of_the_picture():
    rgb = np.full((64, 64, 3), 40, dtype=np.uint8)
    rgb[10:46, 13:51] = (230, 120, 30)
    truth = rgb[..., 0] > 100
    model = make(patch_size=8)
    plain = MaskCut(model, size=64, tau=0.5, max_masks=1)(rgb)
    refined = MaskCut(model, size=64, tau=0.5, max_masks=1, refine="crf")(rgb)

    def iou(masks):
        return max(((m & truth).sum() / (m | truth).sum() for m in masks), default=0)

    assert iou(refined.masks) > max(iou(plain.masks), 0.95)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (7, 5, 3)])
def test_tiny_and_thin_images_are_cut(shape):
    rgb = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    instances = MaskCut(make(), size=32)(rgb)
    assert instances.masks.shape[1:] == shape[:2]
    assert instances.masks.any(axis=(1, 2)).all()


def test_a_plain_image_has_no_instances():
    model = make()
    model.pos_embed.data.zero_()
    assert len(MaskCut(model, size=32)(np.full((40, 40, 3), 128, dtype=np.uint8))) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 50}, "size 50: expected a multiple of the patch size 8, for instance 48"),
        ({"size": 0}, "size 0"),
        ({"feature": "colour"}, "unknown site 'colour'"),
        ({"block": 2}, "blocks 0 to 1"),
        ({"stride": 9}, "stride 9"),
    ],
)
def test_predictor_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        MaskCut(make(), **arguments)


def test_a_feature_that_the_model_lacks_is_refused():
    with pytest.raises(InputError, match="no site codes"):
        MaskCut(make("vit_tiny_patch16_224"), feature="codes")


def test_shapes_and_types_are_those_of_the_annotations():
    """One image from pixels to a score, every annotation of the package checked as it is called."""
    code = """
from jaxtyping import install_import_hook
with install_import_hook("crate_interp", "beartype.beartype"):
    import crate_interp
    from crate_interp import MaskCut, attention_masks, coco_average_precision, record, tokencut
    from crate_interp.data import draw_scene, results_of
    from crate_interp.weights import (create_backbone, resolve_name)
    from crate_interp.visualization import draw_instances
import numpy as np, torch
model = create_backbone(resolve_name("crate_alpha_demo"))
image = draw_scene(np.random.default_rng(0), (64, 80)).image
instances = MaskCut(model, size=48, tau=0.3)(image)
draw_instances(image, instances)
with torch.no_grad(), record(model, ["cls_attention", "subspace"]) as recorder:
    model(torch.zeros(1, 3, *model.patch_embed.img_size))
attention = recorder.activations["cls_attention", -1][0, :, 1:]
attention_masks(attention, by="mass")
tokencut(torch.randn(8, 30), (5, 6))
truth = {"images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 80}],
         "annotations": [], "categories": []}
coco_average_precision(truth, results_of(instances, 1), iou_type="segm")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
