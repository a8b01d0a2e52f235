"""The command `evaluate-classifier`: its numbers against a plain loop, and what it refuses."""

import hashlib
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from crate_interp.cli import main
from crate_interp.models import zero_shot
from crate_interp.training import Recipe, train
from crate_interp.weights import load_backbone, load_clip

CLASSES = ("n01", "n02", "n03", "n04", "n05", "n06", "n07")
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 7, "img_size": 32}
CLIP = "crate_alpha_clipa_large_patch14_224"
CLIP_FILE = "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2.pth"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`val/CLASS/NUMBER.png`, 28 pictures of noise of several sizes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(28):
        path = root / "val" / CLASSES[number % 7] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40 + number, 50), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def run(folder, tmp_path):
    """Run the command with a small untrained model; give the exit code and the JSON result."""

    def run(*more, model="crate_alpha_demo", data=folder, weights="random", model_args=TINY):
        output = tmp_path / "results" / "accuracy.json"
        arguments = ["--model", str(model), "--data", str(data), "--output", str(output)]
        if weights:
            arguments += ["--weights", str(weights), "--model-args", json.dumps(model_args)]
        defaults = ["--batch-size", "5", "--workers", "0", "--device", "cpu"]
        code = main(["evaluate-classifier", *arguments, *defaults, *more])
        return code, json.loads(output.read_text()) if output.exists() else None

    return run


def by_hand(folder, score_of, crop_pct):
    """Top-1 and top-5 of the pictures, one by one."""
    size = {"input_size": 32, "interpolation": "bicubic", "crop_pct": crop_pct}
    transform, hits = create_transform(**size), []
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / "val" / name).iterdir()):
            with Image.open(path) as image, torch.no_grad():
                scores = score_of(transform(image.convert("RGB"))[None])[0].tolist()
            order = sorted(range(7), key=lambda number: -scores[number])
            hits.append((order[0] == label, label in order[:5]))
    return tuple(np.mean(hits, axis=0))


def test_accuracy_is_that_of_a_plain_loop(run, folder, capsys):
    torch.manual_seed(0)
    model = load_backbone("crate_alpha_demo", pretrained=False, **TINY)
    top1, top5 = by_hand(folder, model, model.pretrained_cfg["crop_pct"])
    assert 0 < top1 < top5 < 1
    code, result = run()
    assert code == 0
    assert (result["top1"], result["top5"], result["count"]) == (top1, top5, 28)
    assert result["model"] == "crate_alpha_demo (untrained)"
    assert result["weights"]["sha256"] is None
    assert result["preparation"]["input_size"] == [3, 32, 32]
    printed = capsys.readouterr().out
    assert f"top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} % of 28 images" in printed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm closes none
def test_a_tar_file_is_read_as_its_folder(run, folder, tmp_path, capsys):
    file = tmp_path / "val.tar"
    with tarfile.open(file, "w") as archive:
        archive.add(folder / "val", arcname=".")
    expected, found = run()[1], run(data=file)[1]
    names = ("top1", "top5", "count")
    assert [found[name] for name in names] == [expected[name] for name in names]
    assert run(data=file, model_args=TINY | {"num_classes": 9})[0] == 2
    assert "found 7 classes" in capsys.readouterr().err


def test_processes_and_batch_size_do_not_change_the_result(run):
    expected = run()[1]
    assert run("--workers", "1", "--batch-size", "28")[1] == expected
    assert run("--precision", "bfloat16")[1]["count"] == 28


def test_limit_spreads_over_the_classes(run, folder, capsys):
    assert run("--limit", "7")[1]["count"] == 7
    (folder / "val" / "n01" / "broken.png").write_bytes(b"no picture")
    try:
        assert run("--limit", "5")[0] == 0  # number 4 of 29 is not among 0, 5, 11, 17 and 23
        assert run("--limit", "1000")[0] == 2
        assert "broken.png: not a readable image" in capsys.readouterr().err
        code, result = run("--on-error", "skip")
        assert code == 1
        assert result["count"] == 28
        assert "broken.png" in result["skipped"][0]
    finally:
        (folder / "val" / "n01" / "broken.png").unlink()


@pytest.mark.parametrize("crop_area", [None, [0.3, 1.0]], ids=["whole", "crop"])
@pytest.mark.parametrize("data", ["scenes", "folder"])
def test_a_trained_file_has_the_accuracy_that_training_measured(
    run, folder, tmp_path, data, crop_area
):
    recipe = Recipe(
        model="crate_alpha_demo",
        model_args={"embed_dim": 32, "depth": 2, "num_heads": 2},
        data="scenes" if data == "scenes" else str(folder),
        train_split="val",
        image_size=32,
        crop_area=crop_area,
        validation_scenes=40,
        scene_object_size=(0.55, 1.0),
        batch_size=16,
        steps=2,
        learning_rate=1e-2,
        workers=0,
        seed=3,
    )
    result = train(recipe, tmp_path)
    file = tmp_path / "model.safetensors"
    code, found = run(model=file, data=recipe.data, weights=None)
    assert code == 0
    assert found["top1"] == pytest.approx(result.accuracy, abs=1e-12)
    assert found["count"] == (40 if data == "scenes" else 28)
    assert found["weights"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def clip_file(reference, tmp_path):
    """The reference model; its text projection was never initialised, so here it is."""
    weights = torch.load(reference / CLIP_FILE, weights_only=True)
    torch.manual_seed(0)
    weights["text_projection"] = torch.randn_like(weights["text_projection"])
    torch.save(weights, tmp_path / "clip.pth")
    return tmp_path / "clip.pth"


def test_zero_shot_compares_pictures_with_prompts(run, folder, tmp_path, clip_file, monkeypatch):
    def tokenize(texts, context):
        rows = [[ord(letter) % 40 for letter in text[:context].ljust(context)] for text in texts]
        return torch.tensor(rows)

    monkeypatch.setattr(zero_shot, "tokenize", tokenize)
    names = ["cat", "dog", "sea", "sky", "sun", "ice", "ash"]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
    sizes |= {"text_num_heads": 2}
    model = load_clip(CLIP, clip_file, **sizes)
    with torch.no_grad():
        context = len(model.text.pos_embed)
        texts = model.encode_text(tokenize([f"one {name}" for name in names], context))
    top1, top5 = by_hand(folder, lambda x: model.zero_shot(model.encode_image(x), texts), 1.0)
    assert top5 < 1
    arguments = {"model": CLIP, "weights": clip_file, "model_args": sizes}
    classes = ["--classes", str(tmp_path / "names.txt")]
    code, result = run(*classes, "--templates", "one {}", **arguments)
    assert code == 0
    assert (result["top1"], result["top5"]) == (top1, top5)
    assert result["templates"] == ["one {}"]
    assert run(*classes, **arguments)[1]["templates"] == ["a photo of a {}."]


@pytest.mark.parametrize(
    ("more", "changes", "message"),
    [
        ([], {"model_args": TINY | {"num_classes": 9}}, "found 7 classes, expected as many as the"),
        ([], {"data": "nowhere"}, "data nowhere, validation"),
        ([], {"data": "tfds/flowers"}, "a stream has no position"),
        ([], {"data": "wds/shards"}, "no folder shards"),
        ([], {"model": CLIP}, "--classes FILE"),
        (["--size", "33"], {}, "size 33: expected a multiple of the patch of 4 pixels"),
        (["--limit", "0"], {}, "limit: expected at least 1"),
        (["--workers", "-1"], {}, "workers: expected 0 or more"),
        (["--split", "train"], {}, "expected a folder 'train', found ['val']"),
        (["--device", "abacus"], {}, "device 'abacus' cannot be used here"),
        (["--classes", "nowhere.txt"], {}, "nowhere.txt: cannot be read"),
    ],
)
def test_wrong_input_is_named(run, capsys, more, changes, message):
    if changes.get("model") == CLIP:
        changes["model_args"] = {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": 28}
    code, _ = run(*more, **changes)
    assert code == 2
    assert message in capsys.readouterr().err


def test_weights_whose_scores_are_no_numbers_are_named(run, tmp_path, capsys):
    file = tmp_path / "huge.pth"
    model = load_backbone("crate_alpha_demo", pretrained=False, **TINY | {"num_classes": 7})
    torch.save({key: value * 1e38 for key, value in model.state_dict().items()}, file)
    assert run(weights=file, model_args=TINY | {"num_classes": 7})[0] == 2
    assert f"error: {file}: scores: expected numbers, found NaN" in capsys.readouterr().err


def test_wrong_class_files_are_named(run, tmp_path, capsys):
    names = tmp_path / "names.txt"
    for content, message in (
        ("", "names.txt: expected class names, one a line, found none"),
        ("cat\n\ndog\n", "names.txt, line 2: expected a class name"),
        ("cat\n", "weights random: zero-shot classes need a trained text tower"),
    ):
        names.write_text(content)
        assert run("--classes", str(names))[0] == 2
        assert message in capsys.readouterr().err


def test_an_empty_folder_is_named(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(data=tmp_path / "empty")[0] == 2
    assert "data" in capsys.readouterr().err
