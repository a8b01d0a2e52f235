"""The observer, against a forward pass by hand."""

import numpy as np
import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from crate_interp import InputError, Observer, any_resolution, load_backbone, record
from crate_interp.data import preprocess


def test_activations_are_those_of_a_plain_forward_pass():
    model = load_backbone("demo")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*hw, 3), dtype=np.uint8) for hw in ((30, 50), (64, 48))]
    observer = Observer(model, size=48, stride=2)
    assert (observer.input_hw, observer.grid_hw) == ((48, 48), (23, 23))
    found = observer.activations(images, ["codes", "cls_attention"], [0, -1])
    config = resolve_model_data_config(model)
    pixels = [preprocess(image, (48, 48), config["mean"], config["std"]) for image in images]
    with (
        torch.inference_mode(),
        any_resolution(model, 2),
        record(model, ["codes", "cls_attention"], [0, -1]) as recorder,
    ):
        model(torch.stack(pixels))
    assert list(found) == list(recorder.activations)
    for key, tensor in recorder.activations.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)


def test_default_size_is_the_models_own_or_whole_patches():
    assert Observer(load_backbone("demo")).size == 96
    assert Observer(timm.create_model("vit_tiny_patch16_224", depth=1)).size == 480


def test_size_and_stride_that_cannot_be_are_errors():
    model = load_backbone("demo")
    with pytest.raises(InputError, match="size 30: expected a multiple of the patch size 4"):
        Observer(model, size=30)
    with pytest.raises(InputError, match="stride"):
        Observer(model, size=48, stride=9)
    with pytest.raises(InputError, match="nothing to record"):
        Observer(model, size=48).activations([np.zeros((8, 8, 3), np.uint8)], [], [-1])
