"""The command `benchmark classification`, against scikit-learn on the model's own features."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from crate_interp import Observer, data, load_backbone
from crate_interp.cli import COMMANDS, main
from crate_interp.hooks import any_resolution
from crate_interp.runs.finished_run import opened_run

SIZE = 24
CLASSES = ("blue", "red", "yellow")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Eight pictures of each class to learn from, four to score, three classes."""
    root, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                rgb = rng.integers(0, 200, (30, 40, 3), np.uint8)
                rgb[..., label] |= 128
                Image.fromarray(rgb).save(root / split / name / f"{number}.png")
        with tarfile.open(root / f"{split}.tar", "w") as archive:
            archive.add(root / split, "")
    return root


def classification(train, test, output, *options):
    command = ["benchmark", "classification", str(train), str(test), "--model", "demo", "--size"]
    more = [str(SIZE), "--workers", "0", "--format", "png", "--precision", "float32"]
    return main([*command, *more, "--output", str(output), *options])


def features_of(folder):
    images = data.classes_by_folder(data.open_images([folder], recursive=True))
    observer = Observer(load_backbone("demo"), SIZE)
    rgb = [record.read() for record in images.records]
    with torch.inference_mode(), any_resolution(observer.model):
        tokens = observer.model.forward_features(observer.pixels(rgb))
        features = observer.model.forward_head(tokens, pre_logits=True)
    labels = np.array([images.labels[record.image_id] for record in images.records])
    return features.double().numpy(), labels, [record.file_name for record in images.records]


def test_accuracy_is_that_of_scikit_learn_and_of_votes(folders, tmp_path, capsys):
    options = ["--regularization", "0.1", "--neighbours", "3", "--temperature", "0.5"]
    assert classification(folders / "train", folders / "test", tmp_path, *options) == 0
    assert "learnt from 24 images, scored on 12 of test" in capsys.readouterr().out
    learnt, labels, _ = features_of(folders / "train")
    scored, truth, names = features_of(folders / "test")
    reference = LogisticRegression(C=0.1, max_iter=1000).fit(learnt, labels)
    linear = (reference.predict(scored) == truth).mean()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (learnt, scored)]
    cosines = unit[1] @ unit[0].T
    votes = np.zeros((len(scored), 3))
    for image, row in enumerate(cosines):
        for neighbour in sorted(range(len(row)), key=lambda n: -row[n])[:3]:
            votes[image, labels[neighbour]] += np.exp(row[neighbour] / 0.5)
    knn = (votes.argmax(axis=1) == truth).mean()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["linear"] == {"top1": pytest.approx(linear), "top5": 1.0}
    assert summary["knn"] == {"top1": pytest.approx(knn), "top5": 1.0}
    assert (summary["regularization"], summary["train_images"]) == (0.1, 24)
    assert 1 / 3 < knn <= linear
    with opened_run(tmp_path) as run:
        command = COMMANDS[run.command].load()
        comparable = command.compared(run)
        assert comparable.metrics["linear top-1"] == pytest.approx(linear)
        assert set(comparable.records) == set(names)


def test_tar_files_are_folders_of_classes_and_the_strength_is_chosen(folders, tmp_path):
    for name, suffix in (("folders", ""), ("tars", ".tar")):
        places = (folders / f"{split}{suffix}" for split in ("train", "test"))
        assert classification(*places, tmp_path / name, "--pool", "mean") == 0
    one, other = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("folders", "tars")
    )
    for key in ("linear", "knn", "regularization", "images"):
        assert one[key] == other[key]
    assert 1e-6 <= one["regularization"] <= 1e6


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        ("train", "train", [], "blue/0.png: an image to be scored is among those"),
        ("train/blue", "test", [], "expected folders of two classes or more, found ['blue']"),
        ("other", "test", [], "expected the classes of"),
        ("train", "test", ["--block", "1"], "--pool head: is what leaves the last block"),
        ("train", "test", ["--limit", "3"], "regularization: expected a class of 5 images or more"),
        ("train", "test", ["--temperature", "0"], "temperature: expected more than 0, found 0"),
    ],
)
def test_wrong_input_is_refused(folders, tmp_path, train, test, options, message, capsys):
    for name in ("blue", "green"):
        if not (folders / "other" / name).exists():
            (folders / "other" / name).mkdir(parents=True)
            Image.new("RGB", (30, 40)).save(folders / "other" / name / "0.png")
    assert classification(folders / train, folders / test, tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_image_to_learn_from_ends_the_run(folders, tmp_path, capsys):
    for name in CLASSES[:2]:
        (tmp_path / "damaged" / name).mkdir(parents=True)
        Image.new("RGB", (30, 40)).save(tmp_path / "damaged" / name / "0.png")
    (tmp_path / "damaged" / CLASSES[0] / "1.png").write_bytes(b"no picture")
    scored = folders / "test" / CLASSES[0]
    assert classification(tmp_path / "damaged", scored, tmp_path / "run") == 2
    assert "1.png" in capsys.readouterr().err


def test_scenes_are_classed_by_their_largest_object(tmp_path, capsys):
    assert classification("demo", "demo", tmp_path, "--limit", "16", "--regularization", "1") == 0
    assert "learnt from 16 images, scored on 16 of scenes-val" in capsys.readouterr().out
    scored = data.open_built_in_classes("demo", "val")
    labelled = data.open_largest_objects("demo")
    masks = {
        record.image_id: labelled.labels_of(record, record.hw) for record in labelled.images.records
    }
    assert len(scored) == len(masks) == 64
    by_class = data.open_labelled("demo", "val")
    for record in scored.records[:8]:
        inside = by_class.labels_of(record, record.hw)[masks[record.image_id] == 1]
        name = by_class.classes[np.bincount(inside).argmax()]
        assert scored.classes[scored.labels[record.image_id]] == name


def test_a_set_without_images_to_learn_from_is_refused(tmp_path, capsys):
    assert classification("photos", "photos", tmp_path / "run") == 2
    assert "split: expected val, the one part of photos" in capsys.readouterr().err
