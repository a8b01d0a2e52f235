"""Probes on masks of salient objects, at several sizes and blocks, of chosen pictures."""

import csv
import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import open_images, open_labelled, write_scenes
from crate_interp.errors import InputError
from crate_interp.segmentation import MaskCut
from crate_interp.training import Recipe, train
from crate_interp.training.emergence import measure_blocks, measure_emergence
from crate_interp.training.probe import Probe
from crate_interp.training.probe_columns import ProbeColumn, column_of
from crate_interp.weights import load_backbone


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four scenes as `set/images` and `set/ground_truth_mask`, the last mask empty."""
    folder = tmp_path_factory.mktemp("salient") / "set"
    write_scenes(folder, count=4, seed=5)
    (folder / "ground_truth_mask").mkdir()
    for record in open_images([folder / "demo"]).records:
        rgb = record.read()
        mask = np.zeros(rgb.shape[:2], np.uint8)
        if record.image_id < 4:
            mask[10 * record.image_id :, 20:] = 255
        name = record.path.with_suffix(".png").name
        Image.fromarray(mask).save(folder / "ground_truth_mask" / name)
    (folder / "demo").rename(folder / "images")
    shutil.rmtree(folder / "annotations")  # with which it would be of another kind
    return folder


@pytest.fixture
def probing(settings, scenes):
    return {**settings, "probe_every": 4, "probe_set": str(scenes)}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def probe(recipe, model="demo", **sizes):
    backbone = load_backbone(model, **sizes)
    return Probe(recipe, backbone).measure(backbone)


def test_salient_objects_have_their_numbers(probing, tmp_path):
    train(Recipe(**probing), tmp_path)
    untrained, *_, last = rows(tmp_path / "probes.csv")
    assert [*last][1:11] == [
        *("attention_miou_mass", "attention_miou_entries"),
        *("attention_one_head_mass", "attention_one_head_entries"),
        *("attention_mean_head_mass", "attention_mean_head_entries"),
        *("tokencut_iou", "tokencut_max_f", "pca_iou", "coding_rate_0"),
    ]
    assert untrained["step"] == "0"
    assert untrained["coding_rate_0"] != last["coding_rate_0"]
    assert float(last["attention_mean_head_mass"]) <= float(last["attention_miou_mass"])


@pytest.mark.parametrize(("size", "block"), [(48, -1), (64, -2)])
def test_probe_and_saliency_benchmark_are_the_same_number(settings, scenes, tmp_path, size, block):
    numbers = probe(Recipe(**settings, probe_set=str(scenes), probe_size=size, probe_block=block))
    arguments = [str(scenes / "images"), str(scenes / "ground_truth_mask"), "--model", "demo"]
    arguments += ["--size", str(size), "--block", str(block), "--precision", "float32"]
    arguments += ["--pictures", "0", "--workers", "0", "--output", str(tmp_path / "run")]
    assert main(["benchmark", "saliency", *arguments]) == 0
    scores = json.loads((tmp_path / "run" / "summary.json").read_text())["scores"]
    assert numbers["tokencut_iou"] == scores["TokenCut"]["iou"]
    assert numbers["tokencut_max_f"] == scores["TokenCut"]["max_f"]
    assert numbers["pca_iou"] == scores["principal component"]["iou"]


def test_attention_is_that_of_the_labelled_benchmark(settings, scenes):
    numbers = probe(Recipe(**settings, probe_set=str(scenes), probe_size=48))
    found = measure_emergence(MaskCut(load_backbone("demo"), size=48), open_labelled(scenes, "val"))
    assert found.box is found.mask is None
    for by, score in found.attention.items():
        assert score.images == 3  # an empty mask has nothing to attend to
        assert numbers[f"attention_miou_{by}"] == score.mean_iou["best head"]
        assert numbers[f"attention_mean_head_{by}"] == score.mean_iou["mean head"]
    assert found.tokencut.images == 4


def test_sizes_and_blocks_in_lists_name_the_columns(settings, scenes):
    recipe = {**settings, "probe_set": str(scenes), "probe_size": (48, 64), "probe_block": (-1, 0)}
    expected = {}
    for size, block in itertools.product(recipe["probe_size"], recipe["probe_block"]):
        one = probe(Recipe(**{**recipe, "probe_size": size, "probe_block": block}))
        for name, value in one.items():
            column = column_of(name)
            cut = block if column.layer is None else None  # those of all blocks are of the size
            expected[column._replace(size=size, cut_block=cut).name] = value
    assert probe(Recipe(**recipe)) == expected


def test_blocks_are_measured_in_one_pass_an_image(scenes, monkeypatch):
    backbone, passes = load_backbone("demo"), []
    forward = backbone.patch_embed.forward
    monkeypatch.setattr(
        backbone.patch_embed, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k)
    )
    predictor = MaskCut(backbone, size=48)
    assert len(measure_blocks(predictor, open_labelled(scenes, "val"), [-1, -2, 0])) == 3
    assert len(passes) == 4


@pytest.mark.parametrize(
    ("pictures", "numbers"), [(2, [1, 2]), ((3, 4), [3, 4]), ((2, 2), [2]), ((4, 90), [4])]
)
def test_probed_pictures_are_the_first_or_those_between(settings, scenes, pictures, numbers):
    whole = open_labelled(scenes, "val")
    recipe = Recipe(**settings, probe_set=str(scenes), probe_pictures=pictures)
    images = Probe(recipe, load_backbone("demo"))._images.images
    assert [record.image_id for record in images.records] == numbers
    assert all(record in whole.images.records for record in images.records)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_pictures": (3, 2)}, "probe_pictures: expected the smaller number first"),
        ({"probe_pictures": (0, 2)}, "probe_pictures: expected more than 0, found 0"),
        ({"probe_size": ()}, r"probe_size: expected one or more, each once, found \[\]"),
        ({"probe_size": (48, 48)}, "probe_size: expected one or more, each once"),
        ({"probe_block": ()}, "probe_block: expected one or more"),
        ({"keep_best": "tokencut_iou"}, "keep_best: 'tokencut_iou' is a number of the probes"),
    ],
)
def test_wrong_keys_are_refused(settings, changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_pictures": (5, 9)}, "expected numbers of its 4 images, found 5 to 9"),
        ({"probe_size": (48, 50)}, "size 50: expected a multiple of the patch size"),
        ({"probe_block": (-1, 7)}, "7"),
        ({"keep_best": "coding_rate_0"}, "keep_best: expected one of attention_miou_mass, "),
        ({"keep_best": "accuracy"}, "found accuracy"),
    ],
)
def test_probes_that_cannot_be_made_are_refused_at_the_start(probing, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(Recipe(**{**probing, **changes}), tmp_path)
    assert not (tmp_path / "metrics.csv").exists()


def test_sets_of_many_classes_and_without_images_are_refused(probing, scenes, tmp_path):
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    picture = next((scenes / "images").iterdir())
    (tmp_path / "voc" / "JPEGImages" / "a.jpg").write_bytes(picture.read_bytes())
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "voc" / "SegmentationClass/a.png")
    (tmp_path / "voc" / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    for name in ("images", "masks"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    for place, message in (
        ("voc", "expected masks of one salient object, found 21 classes"),
        ("empty", "expected image files"),
    ):
        (tmp_path / f"run-{place}").mkdir()
        with pytest.raises(InputError, match=message):
            train(Recipe(**{**probing, "probe_set": str(tmp_path / place)}), tmp_path / "run-voc")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("attention_miou_mass", ProbeColumn("attention_miou_mass")),
        ("mask_ap50", ProbeColumn("mask_ap50")),
        ("coding_rate_3", ProbeColumn("coding_rate", layer=3)),
        ("tokencut_iou_224px_block-2", ProbeColumn("tokencut_iou", 224, -2)),
        ("coding_rate_96px_0", ProbeColumn("coding_rate", 96, None, 0)),
    ],
)
def test_columns_are_read_as_they_are_named(name, column):
    assert column_of(name) == column
    assert column.name == name


@pytest.mark.parametrize("name", ["demo", "photos"])
def test_built_in_sets_are_those_of_coco(settings, name, tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path))
    numbers = probe(Recipe(**settings, probe_set=name, probe_size=48, probe_pictures=2))
    assert "mask_ap50" in numbers
    assert "pca_iou" not in numbers
