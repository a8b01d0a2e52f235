"""The commands `benchmark voc2012`, `semantic` and `saliency`, on a few scenes and on VOC."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp.cli import main
from crate_interp.commands import published
from crate_interp.commands.benchmark import voc2012
from crate_interp.commands.published import published_attention_miou, published_saliency
from crate_interp.data import (
    open_labelled,
    open_labelled_scenes,
    open_saliency,
    open_voc,
    truth_masks,
)
from crate_interp.evaluation import (
    best_overlaps,
    image_confusion,
    image_saliency,
    mean_iou,
    saliency_score,
    semantic_score,
    total_confusion,
)
from crate_interp.evaluation.patch_classifier import PatchClassifier
from crate_interp.hooks import Observer
from crate_interp.runs.journal_file import JournalFile
from crate_interp.segmentation import attention_masks, principal_component, tokencut
from crate_interp.weights import load_backbone, resolve_name
from tests.pages import without_seconds

MODEL = ["--model", "demo", "--size", "48", "--workers", "0", "--batch-size", "4"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Six scenes as a VOC folder, an ADE20K folder and a folder of salient objects."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRATE_INTERP_DATA", str(root / "own"))
        scenes = open_labelled_scenes("val", 6)
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / "voc" / name).mkdir(parents=True)
    for split in ("training", "validation"):
        for name in ("images", "annotations"):
            (root / "ade" / name / split).mkdir(parents=True)
    (root / "masks").mkdir()
    for record in scenes.images.records:
        labels, objects = (
            read(record, record.hw) for read in (scenes.labels_of, scenes.objects_of)
        )
        name, picture = record.path.stem, Image.open(record.path)
        picture.save(root / "voc" / "JPEGImages" / f"{name}.jpg", quality=95)
        Image.fromarray(labels).save(root / "voc" / "SegmentationClass" / f"{name}.png")
        Image.fromarray(objects).save(root / "voc" / "SegmentationObject" / f"{name}.png")
        split = "training" if record.image_id <= 3 else "validation"
        picture.save(root / "ade" / "images" / split / f"{name}.jpg", quality=95)
        Image.fromarray(labels + np.uint8(1)).save(
            root / "ade" / "annotations" / split / f"{name}.png"
        )
        salient = 255 * (labels > 0).astype(np.uint8)
        Image.fromarray(salient).save(root / "masks" / f"{name}.png")
    names = [record.path.stem for record in scenes.images.records]
    for split, part in (("train", names[:3]), ("val", names[3:]), ("all", names)):
        (root / "voc" / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(part))
    return root


def benchmark(name, *arguments, output):
    return main(["benchmark", name, *map(str, arguments), *MODEL, "--output", str(output)])


def summary_of(output):
    return json.loads((output / "summary.json").read_text())


def class_rows(output):
    return list(csv.DictReader((output / "classes.csv").read_text().splitlines()))


def observed(records):
    """What the model of the command computes of each image, one by one."""
    observer = Observer(load_backbone("demo"), 48)
    for record in records:
        rgb = record.read()
        geometry = observer.geometry(rgb.shape[:2])
        yield record, geometry, observer.activations([rgb], ["cls_attention", "subspace"], [-1])


def on_original(geometry, masks):
    return geometry.input_to_original(geometry.grid_to_input(np.asarray(masks)))


@pytest.mark.parametrize(("protocol", "per"), [("entries", "class"), ("mass", "object")])
def test_voc2012_equals_the_library(folders, tmp_path, protocol, per, capsys):
    output, options = tmp_path / "run", ["--protocol", protocol, "--per", per, "--split", "all"]
    assert benchmark("voc2012", folders / "voc", *options, "--pictures", 2, output=output) == 0
    printed = capsys.readouterr().out
    data = open_voc(folders / "voc", "all")
    heads, mean_head, principal = [], [], []
    for record, geometry, activations in observed(data.images.records):
        labels = data.labels_of(record, geometry.original_hw)
        objects = data.objects_of(record, geometry.original_hw) if per == "object" else None
        truth, _ = truth_masks(labels, objects, 0)
        rows = activations["cls_attention", -1][0, :, 1:]
        features = activations.patch_features("subspace")[0]
        component = principal_component(features, geometry.grid_hw).mask[None]
        for metric, row in ((heads, rows), (mean_head, rows.mean(dim=0, keepdim=True))):
            kept = attention_masks(row, protocol).unflatten(1, geometry.grid_hw)
            metric.append(best_overlaps(on_original(geometry, kept), truth))
        principal.append(best_overlaps(on_original(geometry, component), truth))
    found = summary_of(output)["mean_iou"]
    for metric, name in (
        *((heads, "best head"), (mean_head, "mean head")),
        (principal, "principal component"),
    ):
        assert found[name] == pytest.approx(mean_iou(metric).mean_iou, abs=1e-6)
        assert f"{100 * found[name]:.1f}" in printed
    assert found["one head"] <= found["best head"]
    assert f"{protocol}, share 0.6; a head per {per}; background does not count" in printed
    for name in ("classes.png", "classes.pdf", "masks.png", "masks.pdf"):
        assert (output / name).stat().st_size > 1000
    rows = class_rows(output)
    assert sum(int(row["images"]) for row in rows) >= 6
    assert all(0 <= float(row["best head"]) <= 1 for row in rows)


@pytest.mark.parametrize("kind", ["ade", "salient"])
def test_voc2012_takes_every_kind_of_labelled_set(folders, tmp_path, capsys, kind):
    data = folders / kind
    if kind == "salient":
        data = tmp_path / kind
        shutil.copytree(folders / "voc" / "JPEGImages", data / "images")
        shutil.copytree(folders / "masks", data / "masks")
    assert benchmark("voc2012", data, "--pictures", 0, output=tmp_path / "run") == 0
    assert summary_of(tmp_path / "run")["published"] is None
    rows = class_rows(tmp_path / "run")
    assert all(0 <= float(row["best head"]) <= 1 for row in rows)
    if kind == "salient":
        assert [row["class"] for row in rows] == ["salient object"]
    assert benchmark("voc2012", data, "--per", "object", output=tmp_path / "run") == 2
    assert "tells no objects apart, which --per object needs" in capsys.readouterr().err


def test_voc2012_has_background_and_the_grid_as_options(folders, tmp_path):
    found = {}
    for name, options in {
        "plain": [],
        "background": ["--background"],
        "grid": ["--resolution", "grid"],
    }.items():
        options = [*options, "--split", "all", "--pictures", 0]
        assert benchmark("voc2012", folders / "voc", *options, output=tmp_path / name) == 0
        found[name] = summary_of(tmp_path / name)["mean_iou"]["best head"]
        assert not (tmp_path / name / "masks.png").exists()
    assert len(set(found.values())) == 3
    rows = class_rows(tmp_path / "background")
    assert rows[0]["class"] == "background"


def test_a_stopped_voc2012_goes_on_to_equal_files(folders, tmp_path, monkeypatch):
    options = [folders / "voc", "--split", "all", "--pictures", 0]
    assert benchmark("voc2012", *options, output=tmp_path / "whole") == 0
    append, left = JournalFile.append, [2]

    def interrupted(self, entry):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        append(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "append", interrupted)
        assert benchmark("voc2012", *options, output=tmp_path / "run") == 130
    assert (tmp_path / "run" / "journal.jsonl").read_text().count("\n") == 2
    assert benchmark("voc2012", *options, output=tmp_path / "run") == 0
    for name in ("summary.json", "classes.csv", "classes.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert benchmark("voc2012", *options, "--protocol", "mass", output=tmp_path / "run") == 2


def test_demo_stands_for_the_scenes(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(folders / "scenes"))
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "voc2012", "demo", *MODEL, "--limit", "2", "--pictures", "1"]) == 0
    assert "on 2 images of scenes-val" in capsys.readouterr().out
    assert (tmp_path / "runs" / "benchmark-voc2012-demo-scenes-val" / "masks.png").exists()


def test_images_with_wrong_labels_are_named_and_the_rest_is_done(folders, tmp_path, capsys):
    voc = shutil.copytree(folders / "voc", tmp_path / "voc")
    masks = sorted((voc / "SegmentationClass").iterdir())[3:]
    Image.new("L", (9, 9)).save(masks[0])
    with Image.open(masks[1]) as mask:
        size = mask.size
    Image.new("L", size, 77).save(masks[1])
    assert benchmark("voc2012", voc, output=tmp_path / "run") == 1
    summary = summary_of(tmp_path / "run")
    assert summary["images"] == 1
    reasons = [entry["reason"] for entry in summary["failed"]]
    assert "its mask has (9, 9)" in reasons[0]
    assert str(masks[0]) in reasons[0]
    assert "labels 0 to 20, and 255 for void, found [77]" in reasons[1]
    assert "2 images failed" in capsys.readouterr().out
    Image.new("RGB", (9, 9)).save(masks[2])
    messages = {"voc2012": "images with ground truth, found none", "semantic": "found shape"}
    for name, message in messages.items():
        assert benchmark(name, voc, output=tmp_path / name) == 2  # no image is left
        printed = capsys.readouterr().err
        assert "found mode RGB" in printed
        assert message in printed


def test_what_voc2012_needs_is_told_at_the_start(folders, tmp_path, capsys):
    voc = shutil.copytree(folders / "voc", tmp_path / "voc")
    output = tmp_path / "run"
    shutil.rmtree(voc / "SegmentationObject")
    assert benchmark("voc2012", voc, "--per", "object", output=output) == 2
    assert "SegmentationObject: no such folder, which --per object needs" in capsys.readouterr().err
    model = ["--model", "demo_vit", "--weights", "random", "--workers", "0"]
    model += ["--model-args", '{"class_token": false, "global_pool": "avg"}']
    arguments = ["benchmark", "voc2012", str(voc), *model, "--output", str(output)]
    assert main(arguments) == 2
    assert "has no site cls_attention" in capsys.readouterr().err
    assert benchmark("voc2012", voc, "--block", 99, output=output) == 2
    assert "block 99 is out of range" in capsys.readouterr().err
    assert benchmark("voc2012", tmp_path, output=output) == 2
    assert "val.txt: cannot be read" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("kind", ["voc", "ade"])
def test_semantic_by_a_probe_equals_the_library(folders, tmp_path, kind, capsys):
    output = tmp_path / "run"
    options = ["--method", "linear", "--patches", 200]
    assert benchmark("semantic", folders / kind, *options, output=output) == 0
    with np.load(output / "classifier.npz") as arrays:
        classifier = PatchClassifier(arrays["weight"], arrays["bias"], arrays["labels"])
    data, records = open_labelled(folders / kind, "val"), []
    for record, geometry, activations in observed(data.images.records):
        predicted = classifier.predict(activations.patch_features("subspace")[0].T.numpy())
        predicted = on_original(geometry, predicted.reshape(1, *geometry.grid_hw))[0]
        labels = data.labels_of(record, geometry.original_hw)
        classes = len(data.classes)
        records.append(image_confusion(labels, predicted, classes, classes))
    expected, found = semantic_score(total_confusion(records, classes, classes)), summary_of(output)
    assert found["mean_iou"] == pytest.approx(expected.mean_iou, abs=1e-3)
    assert found["mean_accuracy"] == pytest.approx(expected.mean_accuracy, abs=1e-3)
    assert found["pixel_accuracy"] == pytest.approx(expected.pixel_accuracy, abs=1e-3)
    assert f"{100 * found['mean_iou']:.1f}" in capsys.readouterr().out
    assert found["settings"]["train_images"]["count"] == 3


def test_semantic_by_clusters_is_the_same_again_and_goes_on(folders, tmp_path):
    options = [folders / "voc", "--split", "all", "--patches", 300]
    for name in ("one", "two"):
        assert benchmark("semantic", *options, output=tmp_path / name) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "summary.json").read_bytes() == (two / "summary.json").read_bytes()
    assert 0 < summary_of(one)["mean_iou"] < 1
    kept = (two / "journal.jsonl").read_text().splitlines(keepends=True)[:2]
    (two / "journal.jsonl").write_text("".join(kept))
    (two / "summary.json").unlink()
    before = (two / "classifier.npz").stat().st_mtime_ns
    assert benchmark("semantic", *options, output=two) == 0
    assert (two / "classifier.npz").stat().st_mtime_ns == before
    assert (one / "summary.json").read_bytes() == (two / "summary.json").read_bytes()


def test_a_stopped_probe_goes_on_with_its_samples_and_leaves_none(folders, tmp_path, monkeypatch):
    options = [folders / "ade", "--method", "linear", "--patches", 200]
    assert benchmark("semantic", *options, output=tmp_path / "whole") == 0
    append, given = JournalFile.append, []

    def interrupted(self, entry):
        given.append(entry["file_name"])
        if len(given) == 2:
            raise KeyboardInterrupt
        append(self, entry)

    run = tmp_path / "run"
    monkeypatch.setattr(JournalFile, "append", interrupted)
    assert benchmark("semantic", *options, output=run) == 130
    assert (run / "samples.jsonl").read_text().count("\n") == 1
    assert benchmark("semantic", *options, output=run) == 0
    names = [f"{number:06d}.jpg" for number in range(1, 7)]
    assert given == [*names[:2], *names[1:]]
    found, expected = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}
        for folder in (run, tmp_path / "whole")
    )
    pages = [without_seconds(files.pop("report.html")) for files in (found, expected)]
    assert pages[0] == pages[1]
    assert found == expected
    assert not (run / "samples").exists()


def spoilt(change):
    def damage(path):
        with np.load(path) as arrays:
            found = dict(arrays)
        np.savez(path, **change(found))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no archive"), "not an .npz file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "classifier.npz: "),
        (spoilt(lambda a: {k: v for k, v in a.items() if k != "bias"}), "expected an array 'bias'"),
        (spoilt(lambda a: {k: v for k, v in a.items() if k != "about"}), "expected an array"),
        (spoilt(lambda a: a | {"weight": a["weight"] + 1e-9}), "expected arrays of checksum"),
        (spoilt(lambda a: a | {"weight": a["weight"][0]}), "expected arrays of checksum"),
        (spoilt(lambda a: a | {"labels": a["labels"].astype("U")}), "expected arrays of checksum"),
        (spoilt(lambda a: a | {"about": np.arange(3)}), "about: expected a text"),
        (spoilt(lambda a: a | {"bias": np.array({})}), "bias"),
    ],
)
def test_a_damaged_classifier_is_told_of_and_fitted_again(
    folders, tmp_path, clusters, damage, message, caplog
):
    run = tmp_path / "run"
    shutil.copytree(clusters, run)
    damage(run / "classifier.npz")
    journal = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(journal[:2]))
    assert benchmark("semantic", folders / "voc", *CLUSTERS, output=run) == 0
    (told,) = [text for text in caplog.messages if "classifier" in text]
    assert message in told
    assert told.endswith("; it is fitted again")
    for name in ("summary.json", "classifier.npz"):
        assert (run / name).read_bytes() == (clusters / name).read_bytes()


def test_more_arrays_in_a_classifier_change_nothing(folders, tmp_path, clusters, caplog):
    run = tmp_path / "run"
    shutil.copytree(clusters, run)
    spoilt(lambda a: a | {"more": np.arange(3)})(run / "classifier.npz")
    assert benchmark("semantic", folders / "voc", *CLUSTERS, output=run) == 0
    assert not caplog.messages


CLUSTERS = ["--split", "all", "--patches", 300]


@pytest.fixture(scope="module")
def clusters(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("clusters") / "run"
    assert benchmark("semantic", folders / "voc", *CLUSTERS, output=output) == 0
    return output


def test_semantic_refuses_to_learn_what_it_scores_and_bad_images(folders, tmp_path, capsys):
    options = ["--method", "linear", "--train-split", "val"]
    assert benchmark("semantic", folders / "voc", *options, output=tmp_path / "run") == 2
    assert "an image to be scored is among those" in capsys.readouterr().err
    voc = shutil.copytree(folders / "voc", tmp_path / "voc")
    (voc / "JPEGImages" / "000001.jpg").write_bytes(b"no image")
    assert benchmark("semantic", voc, "--method", "linear", output=tmp_path / "run2") == 2
    assert "000001.jpg: cannot be read" in capsys.readouterr().err
    (voc / "ImageSets" / "Segmentation" / "train.txt").unlink()
    assert benchmark("semantic", voc, "--method", "linear", output=tmp_path / "run3") == 2
    assert "train.txt: cannot be read" in capsys.readouterr().err


def test_saliency_equals_the_library(folders, tmp_path, capsys):
    images, masks, output = folders / "voc" / "JPEGImages", folders / "masks", tmp_path / "run"
    assert benchmark("saliency", images, masks, "--pictures", 1, output=output) == 0
    data, found = open_saliency(images, masks), {"TokenCut": [], "attention": []}
    for record, geometry, activations in observed(data.images.records):
        truth = data.labels_of(record, geometry.original_hw) == 1
        features = activations.patch_features("subspace")[0]
        cut = on_original(geometry, tokencut(features, geometry.grid_hw).mask[None])[0]
        found["TokenCut"].append(image_saliency(cut.astype(float), cut, truth))
        row = activations["cls_attention", -1][0, :, 1:].mean(dim=0)
        soft = ((row - row.min()) / (row.max() - row.min())).view(1, *geometry.grid_hw)
        mask = attention_masks(row, "mass").view(1, *geometry.grid_hw)
        soft, mask = (on_original(geometry, grid)[0] for grid in (soft, mask))
        found["attention"].append(image_saliency(soft, mask, truth))
    scores = summary_of(output)["scores"]
    assert list(scores) == ["TokenCut", "attention", "principal component"]
    for method, of_images in found.items():
        expected = saliency_score(of_images)
        assert scores[method]["max_f"] == pytest.approx(expected.max_f, abs=1e-4)
        assert scores[method]["iou"] == pytest.approx(expected.iou, abs=1e-6)
        assert scores[method]["accuracy"] == pytest.approx(expected.accuracy, abs=1e-6)
    printed = capsys.readouterr().out
    assert f"{100 * scores['TokenCut']['max_f']:.1f}" in printed
    assert "published" not in printed
    assert (output / "masks.pdf").exists()
    with (output / "masks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(data.images)
    for method, of_images in found.items():
        mine = [row for row in rows if row["method"] == method]
        names = [record.file_name for record in data.images.records]
        assert [row["image"] for row in mine] == names
        ious = [float(row["iou"]) for row in mine]
        assert ious == pytest.approx([one["iou"] for one in of_images], abs=1e-6)
        largest = [float(row["max_f"]) for row in mine]
        assert largest == pytest.approx([max(one["f"]) for one in of_images], abs=1e-4)


def test_saliency_without_a_class_token_has_no_attention(folders, tmp_path, caplog):
    images, masks = folders / "voc" / "JPEGImages", folders / "masks"
    arguments = [
        "benchmark",
        "saliency",
        str(images),
        str(masks),
        "--output",
        str(tmp_path / "run"),
    ]
    arguments += ["--model", "demo_vit", "--weights", "random", "--size", "48", "--workers", "0"]
    arguments += ["--model-args", '{"class_token": false, "global_pool": "avg"}']
    assert main([*arguments, "--limit", "2", "--pictures", "0"]) == 0
    assert "demo_vit has no class token" in caplog.text
    assert "attention" not in summary_of(tmp_path / "run")["scores"]
    (masks / "000002.png").rename(masks / "away.png")
    try:
        assert main(arguments) == 2
    finally:
        (masks / "away.png").rename(masks / "000002.png")


def test_saliency_of_masks_that_cannot_be_read_is_an_error(folders, tmp_path, capsys):
    masks = shutil.copytree(folders / "masks", tmp_path / "masks")
    for path in masks.iterdir():
        path.write_bytes(b"no mask")
    images = folders / "voc" / "JPEGImages"
    assert benchmark("saliency", images, masks, output=tmp_path / "run") == 2
    assert "expected images and masks that can be read, found none" in capsys.readouterr().err


def test_published_numbers_belong_to_models_that_have_one():
    dino, val = "vit_small_patch8_224.dino", ("val", 1449)
    assert published_attention_miou(dino, "mass", *val)[0] == 44.7
    assert published_attention_miou(dino, "entries", *val)[0] == 27.0
    assert published_attention_miou("crate_alpha_demo", "entries", *val) is None
    assert published_attention_miou(None, "mass", *val) is None
    dino = "vit_small_patch16_224.dino"
    assert published_saliency(dino, "/data/ECSSD/images", 1000).iou == 71.2
    assert published_saliency(dino, "/data/other", 1000) is None
    assert published_saliency("crate_alpha_demo", "/data/ECSSD/images", 1000) is None
    assert published_saliency(None, "/data/ECSSD/images", 1000) is None


def test_published_models_are_models_that_can_be_named():
    for _, values in published._ATTENTION_MIOU.values():
        for model in values:
            name = model.removesuffix(" (untrained)")
            assert str(resolve_name(name)).startswith(name)


def test_published_stands_beside_measured(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(voc2012, "published_attention_miou", lambda *_: (12.3, "Somebody"))
    output = tmp_path / "run"
    assert benchmark("voc2012", folders / "voc", "--pictures", 0, output=output) == 0
    assert "1449 images of VOC 2012 val: 12.3 (Somebody)" in capsys.readouterr().out
    found = summary_of(output)["published"]
    assert found == {"mean_iou": pytest.approx(0.123), "source": "Somebody"}


def test_real_voc_has_a_table(shared_data, tmp_path, capsys):
    torch.manual_seed(0)
    options = ["--limit", 4, "--pictures", 0]
    assert (
        benchmark("voc2012", shared_data / "voc" / "VOC2012", *options, output=tmp_path / "r") == 0
    )
    printed = capsys.readouterr().out
    assert "on 4 images of VOC2012-val" in printed
    assert "principal component" in printed


def test_real_ecssd_has_a_table(shared_data, tmp_path, capsys):
    ecssd = shared_data / "ecssd"
    folders = [ecssd / "images", ecssd / "ground_truth_mask"]
    assert (
        benchmark("saliency", *folders, "--limit", 4, "--pictures", 0, output=tmp_path / "r") == 0
    )
    assert "max F" in capsys.readouterr().out
