"""A file's weights go by the file's name: captions, published numbers, records, normalisation."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import crate_interp
import crate_interp.weights as weights
from crate_interp.cli import main
from crate_interp.commands.benchmark.voc2012 import Voc2012
from crate_interp.commands.convert import Convert
from crate_interp.commands.published import published_attention_miou, published_saliency
from crate_interp.runs import inference
from crate_interp.runs.inference import describe_model, load_model, release_of
from crate_interp.runs.options import ImageOptions
from crate_interp.weights import create_backbone, load_backbone, resolve_name, weights_checksum
from crate_interp.weights.sources import WeightSource

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "img_size": 8}
IMAGENET = [0.485, 0.456, 0.406]


@pytest.fixture
def mine(tmp_path) -> Path:
    """Weights of a tiny ViT, in a file that says nothing else."""
    torch.manual_seed(0)
    model = create_backbone(resolve_name("vit_S8"), num_classes=3, **TINY)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("vit_small_patch16_224", "mine.pth", "vit_small_patch16_224 (mine.pth)"),
        ("dino_vits8", "some/mine.pth", "vit_small_patch8_224 (mine.pth)"),
        ("dino_vits8", "random", "vit_small_patch8_224 (untrained)"),
        ("dino_vits8", None, "vit_small_patch8_224.dino"),
        ("some/mine.safetensors", None, "some/mine.safetensors"),
    ],
)
def test_model_of_a_file_goes_by_the_files_name(name, weights, expected):
    assert describe_model(name, None if weights is None else Path(weights)) == expected


@pytest.mark.parametrize("measured", [("train", 1464), ("trainval", 2913), ("val", 16)])
def test_published_numbers_are_those_of_the_whole_set(measured):
    assert published_attention_miou("vit_small_patch8_224.dino", "mass", *measured) is None
    assert published_saliency("vit_small_patch16_224.dino", "/data/ECSSD", 16) is None


def _config(**options):
    return Voc2012(data=Path("demo"), **options)


def test_published_numbers_stand_beside_the_release_alone(monkeypatch):
    dino, tag = "dino_vits8", "vit_small_patch8_224.dino"
    assert release_of(_config(model=dino), "any") == tag  # from the hub; no checksum is known
    assert release_of(_config(model=dino, weights=Path("mine.pth")), "any") is None
    assert release_of(_config(model=dino, mean=[0.5, 0.5, 0.5]), "any") is None
    assert release_of(_config(model=dino, model_args={"img_size": 96}), "any") is None
    assert release_of(_config(model="mine.safetensors"), "any") is None
    untrained = _config(model="vit_S8", weights=Path("random"))
    assert release_of(untrained, None) == "vit_small_patch8_224 (untrained)"

    source = WeightSource(tag, hub_id="timm/x", sha256="known")
    monkeypatch.setattr(inference, "weight_source", lambda name: source)
    assert release_of(_config(model=dino, weights=Path("mine.pth")), "known") == tag
    assert release_of(_config(model=dino, weights=Path("mine.pth")), "other") is None
    assert release_of(_config(model=dino), "other") is None


def test_normalisation_that_a_file_does_not_tell_is_said_once(mine, caplog):
    options = ImageOptions(
        model="vit_small_patch16_224", weights=mine, model_args=TINY, images=[Path("x")]
    )
    model, _ = load_model(options)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("crate")]
    assert line.startswith("mine.pth says nothing of its normalisation: mean 0.5 0.5 0.5, std 0.5")
    assert "vit_small_patch16_224; --mean and --std" in line
    assert inference.statistics_of(model) == {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_normalisation_that_is_given_or_told_is_not_said(mine, tmp_path, caplog):
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    options = ImageOptions(
        model="dino_vits8", weights=mine, model_args=TINY, images=[Path("x")], **given
    )
    assert inference.statistics_of(load_model(options)[0]) == given
    output = tmp_path / "out.safetensors"
    options = Convert(mine, output, "dino_vits8", {"num_heads": 2}, **given)
    assert options.run() == 0
    assert inference.statistics_of(load_backbone(output)) == given
    assert not [record for record in caplog.records if record.name.startswith("crate")]


def test_mean_and_std_change_the_result_and_are_in_the_settings(mine, tmp_path, capsys):
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / "a.png")
    scores = {}
    for name, more in (("own", []), ("given", ["--mean", "0", "0", "0", "--std", "1", "1", "1"])):
        arguments = ["pca", str(tmp_path / "a.png"), "--model", "dino_vits8", "--weights"]
        arguments += [str(mine), "--model-args", json.dumps(TINY), "--size", "32", "--workers", "0"]
        arguments += ["--foreground", "none"]
        arguments += ["--output", str(tmp_path / f"{name}.png"), "--format", "png", *more]
        assert main(arguments) == 0, capsys.readouterr().err
        with np.load(tmp_path / f"{name}.npz") as arrays:
            scores[name] = json.loads(str(arrays["about"]))["settings"]
    assert scores["own"]["mean"] == pytest.approx(IMAGENET)
    assert scores["given"]["mean"] == [0, 0, 0]
    assert scores["own"]["model"] == "vit_small_patch8_224 (mine.pth)"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mean", "0.5", "0.5"], "mean: expected three numbers"),
        (["--std", "0", "1", "1"], "std: expected more than 0, found 0.0"),
        (["--mean", "99", "0", "0"], "mean: expected a number of at most 10, found 99.0"),
    ],
)
def test_statistics_that_are_none_are_refused(more, message, mine, tmp_path, capsys):
    arguments = ["convert", str(mine), str(tmp_path / "out.safetensors"), "--model", "vit_S8"]
    assert main([*arguments, "--model-args", '{"num_heads": 2}', *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("vit_small_patch8_224", "vit_small_patch8_224"),
        ("dino_vits8", "vit_small_patch8_224"),
        ("vit_small_patch8_224.dino", "vit_small_patch8_224.dino"),  # the user says so
    ],
)
def test_convert_gives_a_file_no_tag_that_is_not_its_own(name, recorded, mine, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    assert Convert(mine, output, name, {"num_heads": 2}).run() == 0
    with safe_open(output, "pt") as file:
        assert file.metadata()["model"] == recorded
    assert f"{recorded}, " in capsys.readouterr().out
    assert load_backbone(output).num_classes == 3


def test_convert_knows_a_release_by_its_checksum(mine, tmp_path, monkeypatch):
    source = WeightSource("x", link="y", sha256=weights_checksum(mine))
    monkeypatch.setattr(weights, "weight_source", lambda name: source)
    output = tmp_path / "out.safetensors"
    Convert(mine, output, "dino_vits8", {"num_heads": 2}).run()
    with safe_open(output, "pt") as file:
        assert file.metadata()["model"] == "vit_small_patch8_224.dino"


def test_convert_refuses_weights_that_are_no_numbers_unless_allowed(mine, tmp_path, capsys):
    content = torch.load(mine, weights_only=True)
    content["head.bias"][0] = float("nan")
    torch.save(content, mine)
    output = tmp_path / "out.safetensors"
    arguments = ["convert", str(mine), str(output), "--model", "vit_S8"]
    arguments += ["--model-args", '{"num_heads": 2}']
    assert main(arguments) == 2
    assert "mine.pth: 'head.bias': 1 of 3 weights are NaN" in capsys.readouterr().err
    assert not output.exists()
    assert main([*arguments, "--allow-nonfinite"]) == 0


@pytest.mark.parametrize("args", [{"checkpoint_path": "x"}, {"norm_layer": "os.system"}])
def test_model_args_that_are_no_sizes_are_refused(args, mine, tmp_path, capsys):
    arguments = ["convert", str(mine), str(tmp_path / "out.safetensors"), "--model", "vit_S8"]
    assert main([*arguments, "--model-args", json.dumps(args)]) == 2
    (name,) = args
    assert f"cannot be made with '{name}'" in capsys.readouterr().err


def test_hub_that_cannot_be_reached_is_one_quick_error(tmp_path):
    """In a process of its own: the hub reads its variables at import."""
    script = (
        "import sys; from crate_interp.cli import main\n"
        "sys.exit(main(['evaluate-classifier', '--model', 'crate_alpha_B8.in21k', "
        "'--data', 'scenes']))\n"
    )
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in ran.stderr.splitlines() if line]
    assert ran.returncode == 2, ran.stderr
    assert len(lines) == len(set(lines)) == 2, ran.stderr
    assert lines[0].startswith("WARNING: downloading the weights of crate_alpha_base")
    assert "the hub cannot be reached: " in lines[1]
    assert "Retrying" not in ran.stderr
    assert time.perf_counter() - started < 120  # of which six tries would have been 23 s


def test_package_has_its_version_and_its_errors():
    assert crate_interp.__version__.count(".") >= 2
    assert issubclass(crate_interp.CheckpointError, crate_interp.InputError)
    assert {"CheckpointError", "InputError"} <= set(dir(crate_interp))
