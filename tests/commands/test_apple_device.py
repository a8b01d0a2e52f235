"""Commands on a stand-in for Apple's GPUs, at their default options.

It is a tensor that says it is on `mps` and refuses what these refuse: float64, tensors of the CPU
beside it, and numpy. The numbers are computed on the CPU; that they are elsewhere is kept in the
type of the tensor, which all threads see.
"""

from collections.abc import Iterator
from functools import wraps
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crate_interp import load_backbone, maskcut, record, tokencut
from crate_interp.analysis import attention_statistics, layer_objective
from crate_interp.cli import main
from crate_interp.data import draw_scene
from crate_interp.segmentation import attention_masks, principal_component
from crate_interp.segmentation.segmenter import SEGMENTERS

MPS = torch.device("mps")
FACTORIES = ("arange", "as_tensor", "empty", "eye", "full", "ones", "randn", "tensor", "zeros")
# What takes tensors of both sides, as PyTorch does.
CROSSING = {Tensor.copy_, Tensor.__setitem__, Tensor.__getitem__}


class AppleTensor(Tensor):
    """A tensor of the stand-in."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:
            return MPS
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        others = [t for t in _tensors(args, kwargs) if not isinstance(t, cls) and t.ndim]
        if others and func not in CROSSING:
            raise RuntimeError(f"{func}: expected all tensors on one device, found mps and cpu")
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "cpu"}
        return _checked(super().__torch_function__(func, types, args, kwargs))


def _tensors(*values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(*value)
        elif isinstance(value, dict):
            yield from _tensors(*value.values())


def _checked(found):
    if any(isinstance(t, AppleTensor) and t.dtype == torch.float64 for t in _tensors(found)):
        raise TypeError("the MPS framework doesn't support float64. Please use float32 instead")
    return found


def _moved(tensor, *args, **kwargs):
    """`Tensor.to`, for which the place decides the type of the tensor."""
    named = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, torch.device))]
    models = [value.device for value in args if isinstance(value, Tensor)]
    place = torch.device(named[0]) if named else (models[0] if models else tensor.device)
    rest = [v for v in args if isinstance(v, torch.dtype)] + [v.dtype for v in args[:1] if models]
    dtype = kwargs.get("dtype") or (rest[0] if rest else tensor.dtype)
    plain = tensor.as_subclass(Tensor)
    with torch._C.DisableTorchFunctionSubclass():
        plain = _to(plain, dtype)
    return _checked(plain.as_subclass(AppleTensor)) if place.type == "mps" else plain


_to = Tensor.to


def _on_device(make):
    @wraps(make)
    def wrapped(*args, device=None, **kwargs):
        if device is None or torch.device(device).type != "mps":
            return make(*args, **kwargs) if device is None else make(*args, device=device, **kwargs)
        found = make(*(a.cpu() if isinstance(a, Tensor) else a for a in args), **kwargs)
        return _checked(found.as_subclass(AppleTensor))

    return wrapped


def _module_to(module: nn.Module, device):
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = parameter.detach().to(device)
                part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)
    return module


@pytest.fixture
def _apple_device() -> Iterator[None]:
    """Have `mps` be there."""

    def to(tensor, *args, **kwargs):
        return _moved(tensor, *args, **kwargs)

    patches = [patch.object(torch, name, _on_device(getattr(torch, name))) for name in FACTORIES]
    patches += [patch.object(Tensor, "to", to), patch.object(nn.Module, "to", _module_to)]
    for one in patches:
        one.start()
    yield
    for one in patches:
        one.stop()


pytestmark = [pytest.mark.usefixtures("_apple_device"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        scene = draw_scene(np.random.default_rng(number), (40, 48))
        Image.fromarray(scene.image).save(folder / f"{number}.png")
    return folder


def run(command, images, *options, device="mps"):
    model = ["--model", "demo", "--size", "24", "--workers", "0", "--device", device]
    return main([*command.split(), *map(str, images), *model, *map(str, options)])


def test_the_stand_in_refuses_float64_other_devices_and_numpy():
    there = torch.ones(3).to("mps")
    assert (there.device.type, (there + 1).device.type, there.cpu().device.type) == (
        *("mps", "mps", "cpu"),
    )
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(3, dtype=torch.float64, device="mps")
    with pytest.raises(RuntimeError, match="one device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


@pytest.mark.parametrize("options", [[], ["--effect", "mask"], ["--target", "atoms"]])
def test_ablate(pictures, tmp_path, options):
    more = ["--measured", "4"] if "atoms" in options else []
    numbers = []
    for device in ("mps", "cpu"):
        output = tmp_path / device
        options = [*options, *more, "--block", "1", "--output", output]
        assert run("ablate", [pictures], *options, device=device) == 0
        numbers.append(np.load(output / "ablation.npz")["effects"])
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-4)


def test_atlas_and_atoms(pictures, tmp_path):
    atlas, picture = tmp_path / "atlas", pictures / "0.png"
    assert run("atlas", [pictures], "--output", atlas) == 0
    output = ["--output", tmp_path / "atoms.png", "--device", "mps"]
    assert main(["atoms", str(picture), "--atlas", str(atlas), *map(str, output)]) == 0


@pytest.mark.parametrize("model", ["demo", "vit_demo"])
def test_layers(pictures, tmp_path, model):
    weights = ["--weights", "random", "--model", model]
    assert run("layers", [pictures], *weights, "--output", tmp_path / "layers.png") == 0


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("maskcut --images", ["--visualize", "0", "--refine", "crf"]),
        ("attention", ["--figure", "semantics", "curves"]),
        ("pca", []),
        ("features", ["--pool", "none"]),
        ("features", ["--pool", "head"]),
        ("side-by-side", []),
        *(
            ("segment --images", ["--method", name, "--visualize", "0"])
            for name in SEGMENTERS.names()
        ),
    ],
)
def test_commands_that_hold(pictures, tmp_path, command, options):
    files = {"pca": "pca.png", "features": "features.npz", "side-by-side": "rows.png"}
    output = tmp_path / files.get(command, "run")
    assert run(command, [str(pictures)], *options, "--output", output) == 0


def test_attribute(pictures, tmp_path):
    pytest.importorskip("captum", reason="needs the extra attribution")
    output = ["--steps", "3", "--output", tmp_path / "attribute.png"]
    assert run("attribute", [pictures], *output) == 0


@pytest.mark.parametrize("options", [["voc2012"], ["semantic"], ["semantic", "--method", "linear"]])
def test_benchmarks(tmp_path, options):
    command, *more = options
    assert run(f"benchmark {command}", ["demo"], *more, "--limit", 2, "--output", tmp_path) == 0


def test_benchmark_classification(pictures, tmp_path):
    for number, name in enumerate(("a", "b", "a")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (40, 48), (80 * number, 0, 9)).save(tmp_path / name / f"{number}.png")
    places = ["--regularization", "1", "--output", tmp_path / "run"]
    scored = tmp_path / "scored" / "a"
    scored.mkdir(parents=True)
    (scored / "0.png").write_bytes((pictures / "0.png").read_bytes())
    (tmp_path / "learnt").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / "learnt" / name)
    images = [tmp_path / "learnt", scored.parent]
    assert run("benchmark classification", images, *places) == 0


def test_evaluate_classifier():
    data = ["--data", "scenes", "--limit", "4", "--size", "96"]
    assert run("evaluate-classifier", [], *data) == 0


@torch.inference_mode()
def test_functions_take_what_was_recorded_there():
    model = load_backbone("demo").to("mps")
    sites = ["subspace", "codes", "tokens_in", "query", "key"]
    with record(model, sites, range(4)) as recorder:
        model(torch.randn(1, 3, 96, 96).to("mps"))
    found = recorder.activations
    assert found["key", 0].device.type == "mps"
    features = found.patch_features("subspace")[0]
    assert maskcut(features, found.grid_hw).masks.any()
    assert tokencut(features, found.grid_hw).mask.any()
    assert principal_component(features, found.grid_hw).mask.any()
    assert attention_masks(features.abs()).any()
    assert layer_objective(model, found).objective.shape == (1, 4)
    assert attention_statistics(found).entropy.shape == (1, 4, 4)
