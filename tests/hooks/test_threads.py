"""One model on several threads: each sees its own passes, and its own changes of the model."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

from crate_interp import (
    InputError,
    MaskCut,
    ScaleEdit,
    Target,
    any_resolution,
    intervene,
    load_backbone,
    record,
)
from crate_interp.analysis import attention_relevance
from crate_interp.data import draw_scene
from crate_interp.models import inference_precision

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
CHOICES = [(48, None), (64, 4), (96, 2), (80, 3), (32, None)]  # sizes and strides


def on_four_threads(work, count):
    """What `work` returns of 0, 1, and so on, on threads that start together."""
    ready = threading.Barrier(4)
    with ThreadPoolExecutor(4, initializer=ready.wait) as pool:
        return list(pool.map(work, range(count)))


@pytest.fixture(autouse=True)
def _threads_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng(n), (60, 72 + 8 * n)).image for n in range(3)]


@pytest.mark.usefixtures("one_thread")
def test_masks_of_a_model_that_threads_share_are_those_of_one_thread(scenes):
    model = load_backbone("demo")

    def cut(number):
        size, stride = CHOICES[number % len(CHOICES)]
        predictor = MaskCut(model, size=size, stride=stride, precision="bfloat16_attention")
        return predictor(scenes[number % len(scenes)]).masks

    expected = [cut(number) for number in range(15)]
    found = on_four_threads(lambda number: cut(number % 15), 60)
    wrong = [n for n, masks in enumerate(found) if not np.array_equal(masks, expected[n % 15])]
    assert wrong == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "crate_alpha_tiny_patch16_224"])
def test_every_context_manager_is_of_its_own_thread(architecture):
    """Also a plain pass at the model's own size is, beside passes of other sizes and strides."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **TINY).eval()
    images = {size: torch.randn(1, 3, size, size) for size, _ in CHOICES}
    before = {name: vars(module).copy() for name, module in model.named_modules()}

    @torch.inference_mode()
    def work(number):
        kind = number % 7
        if kind < len(CHOICES):
            size, stride = CHOICES[kind]
            edits = {Target("heads", 0, index=kind % 3): ScaleEdit(kind)}
            with (
                any_resolution(model, stride),
                inference_precision("float32", model),
                intervene(model, edits),
                record(model, ["key", "tokens"], [0, 1]) as recorder,
            ):
                model(images[size])
            return torch.cat([tensor.flatten() for tensor in recorder.activations.values()])
        if kind == 5:
            return model(images[32])
        with torch.inference_mode(False):
            return attention_relevance(model, images[32], torch.tensor([3]))

    expected = [work(number) for number in range(7)]
    found = on_four_threads(lambda number: work(number % 7), 140)
    wrong = [n for n, values in enumerate(found) if not torch.equal(values, expected[n % 7])]
    assert wrong == []
    assert {name: vars(module) for name, module in model.named_modules()} == before


@torch.inference_mode()
def test_a_change_of_one_thread_is_none_for_another_one():
    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    pixels = torch.randn(1, 3, 32, 32)
    plain = torch.inference_mode()(model)
    expected = plain(pixels)
    with (
        any_resolution(model, 4),
        intervene(model, {Target("tokens", 0): ScaleEdit(0)}),
        record(model, ["key"]) as recorder,
        ThreadPoolExecutor(1) as other,
    ):
        assert torch.equal(other.submit(plain, pixels).result(), expected)
        with pytest.raises(InputError, match="in the same thread"):
            recorder.activations  # noqa: B018
        assert not torch.equal(plain(pixels), expected)
    assert recorder.activations.grid_hw == (7, 7)


@torch.inference_mode()
def test_resolutions_are_nested_and_the_inner_stride_is_used():
    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    grids = []
    with any_resolution(model, 4):
        for stride in (None, 2, None):
            with any_resolution(model, stride), record(model, ["key"]) as recorder:
                model(torch.randn(1, 3, 40, 32))
            grids.append(recorder.activations.grid_hw)
    assert grids == [(9, 7), (17, 13), (9, 7)]


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6")
def test_compiled_models_are_compiled_again_after_blocks_that_overlap():
    from torch._dynamo import eval_frame

    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    before = eval_frame._stance
    first, second = record(model, ["key"]), record(model, ["key"])
    with first:
        second.__enter__()
    second.__exit__(None, None, None)
    assert eval_frame._stance == before
