"""Wrong arguments of the Python interface are named; models and images of other kinds work."""

import io

import numpy as np
import pytest
import timm
import torch

from crate_interp import InputError, MaskCut, Observer, any_resolution, load_backbone, record
from crate_interp.models import inference_precision

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}


def vit(name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, **(TINY | arguments)).eval()


@pytest.fixture(scope="module")
def rgb():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "precision: expected float32, .*found 'int8'"),
        ({"precision": ["float32"]}, "precision: expected"),
        ({"size": 96.0}, "size: expected .*found 96.0"),
        ({"size": (96, 160, 3)}, r"size: expected .*found \(96, 160, 3\)"),
        ({"size": (96, 100)}, r"size \(96, 100\): .* for instance \(96, 96\)"),
        ({"size": True}, "size: expected"),
        ({"stride": "4"}, "stride: expected .*found '4'"),
    ],
)
def test_an_observer_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        Observer(vit(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "precision: expected"),
        ({"solver": "arpack"}, "solver: expected lanczos, dense, found 'arpack'"),
        ({"refine": True}, "refine: expected none, crf, pydensecrf, bilateral, found True"),
        ({"feature": "attention"}, "feature: expected auto, .*found 'attention'"),
        ({"feature": None}, "sites: expected names of sites, found None"),
        ({"max_masks": 2.5}, "max_masks: expected a whole number, found 2.5"),
        ({"max_masks": 0}, "max_masks: expected at least 1, found 0"),
        ({"tau": 1}, "tau: expected a cosine between -1 and 1, found 1"),
        ({"tau": "0.2"}, "tau: expected a number, found '0.2'"),
        ({"tau": float("nan")}, "tau: expected a cosine"),
        ({"block": "last"}, "block: expected a whole number, found 'last'"),
    ],
)
def test_maskcut_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        MaskCut(vit(), **({"size": 32} | arguments))


@pytest.mark.parametrize(
    ("sites", "blocks", "message"),
    [
        ([3], [-1], "sites: expected names of sites, found 3"),
        (None, [-1], "sites: expected names of sites, found None"),
        ("key", [1.5], "blocks: expected whole numbers, found 1.5"),
        ("key", "-1", "blocks: expected whole numbers, found '-'"),
        ("key", [True], "blocks: expected whole numbers, found True"),
        ("key", None, "blocks: expected whole numbers, found None"),
    ],
)
def test_record_refuses_other_types(sites, blocks, message):
    with pytest.raises(InputError, match=message):
        record(vit(), sites, blocks)


def test_a_precision_that_there_is_not_is_no_precision():
    with pytest.raises(InputError, match=r"precision: expected float32, .*found .int8."):
        inference_precision("int8", vit())


def test_numbers_of_numpy_are_numbers():
    predictor = MaskCut(vit(), size=np.int64(32), tau=np.float32(0.25), max_masks=np.int32(2))
    assert (predictor.size, predictor.tau, predictor.max_masks) == (32, 0.25, 2)
    assert type(predictor.max_masks) is int


@pytest.mark.parametrize("make", [Observer, MaskCut, any_resolution, lambda m: record(m, ["key"])])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_atto", "expected a vision transformer.*found ConvNeXt"),
        ("resnet10t", "found ResNet"),
        ("mixer_s32_224", "found MlpMixer"),
    ],
)
def test_other_networks_are_refused(make, name, message):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(InputError, match=message), make(model):
        pass


@pytest.mark.parametrize("make", [Observer, MaskCut, any_resolution])
@pytest.mark.parametrize("name", ["convit_tiny", "cait_xxs24_224", "xcit_nano_12_p8_224"])
def test_transformers_of_one_resolution_are_refused(make, name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(InputError, match="cannot change its resolution"), make(model):
        pass


@pytest.mark.parametrize("model", [None, "dino_vits8", torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(InputError, match="expected a vision transformer"):
        Observer(model)


def test_a_block_without_attention_has_its_tokens(rgb):
    model = vit()
    for block in model.blocks:
        block.attn.__class__ = type("Other", (timm.layers.Attention,), {})
        block.mlp = torch.nn.Identity()
    found = Observer(model, size=32).activations([rgb], ["tokens"], [-1])
    assert found["tokens", -1].shape == (1, 17, 48)
    with pytest.raises(InputError, match="no site key at block -1; it has tokens_in, tokens"):
        MaskCut(model, size=32)
    assert MaskCut(model, size=32, feature="tokens")(rgb).masks.shape[1:] == (40, 60)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_number_types_are_observed(rgb, dtype):
    expected = Observer(vit(), size=32).activations([rgb], ["key"], [-1])["key", -1]
    observer = Observer(vit().to(dtype), size=32)
    found = observer.activations([rgb], ["key"], [-1])["key", -1]
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    assert MaskCut(observer.model, size=32)(rgb).masks.shape[1:] == (40, 60)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6")
@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_finds_the_same_masks(rgb, in_place):
    model = vit()
    expected = MaskCut(model, size=48, stride=4)(rgb)
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    found = MaskCut(model, size=48, stride=4)(rgb)
    np.testing.assert_array_equal(found.masks, expected.masks)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_a_size_may_be_height_and_width(rgb):
    observer = Observer(load_backbone("demo"), size=(32, 48))
    assert (observer.input_hw, observer.grid_hw) == ((32, 48), (8, 12))
    found = observer.activations([rgb], ["codes"], [-1])
    assert found.grid_hw == (8, 12)
    predictor = MaskCut(load_backbone("demo"), size=[32, 48], tau=0.3)
    assert predictor(rgb).masks.shape[1:] == (40, 60)
    assert predictor.size == (32, 48)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (None, "NoneType"),
        (torch.zeros(40, 60, 3, dtype=torch.uint8), "Tensor"),
        (io.BytesIO(b""), "BytesIO"),
        (3, "int"),
    ],
)
def test_what_is_no_image_is_refused(image, found):
    message = f"image: expected a path, a Pillow image or a uint8 array .*found {found}"
    with pytest.raises(InputError, match=message):
        MaskCut(vit(), size=32)(image)
    with pytest.raises(InputError, match=f"rgb: expected a uint8 array .*found {found}"):
        Observer(vit(), size=32).activations([image], ["key"], [-1])


def test_no_image_is_refused():
    with pytest.raises(InputError, match="images: expected an image or more, found none"):
        Observer(vit(), size=32).activations([], ["key"], [-1])


def test_a_list_of_images_is_cut_one_after_the_other(rgb):
    predictor = MaskCut(vit(), size=48, tau=0.4)
    other = rgb[::-1, :30].copy()
    found = predictor([rgb, other])
    for one, image in zip(found, (rgb, other), strict=True):
        np.testing.assert_array_equal(one.masks, predictor(image).masks)
    assert predictor([]) == []


def test_a_predictor_describes_itself_in_one_line():
    observer, predictor = Observer(vit(), size=32), MaskCut(vit(), size=32, stride=4)
    assert repr(observer) == (
        "Observer(VisionTransformer, size=32, precision='float32', device='cpu')"
    )
    assert repr(predictor) == (
        "MaskCut(VisionTransformer, size=32, stride=4, precision='float32', device='cpu', "
        "tau=0.15, max_masks=3, feature='key', block=-1, refine='none', solver='lanczos')"
    )
