"""The built-in sets: the table, the photographs and their licence, labels, names that collide."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import (
    VOID,
    built_in_name,
    decode_mask,
    draw_segmentation,
    encode_masks,
    open_coco,
    open_labelled,
    open_largest_objects,
)
from crate_interp.data.built_in import BUILT_IN_SETS, BuiltInSet, built_in_choices
from crate_interp.data.coco import coco_annotation_file
from crate_interp.errors import InputError

ROOT = Path(__file__).parents[2]
PACKED = ROOT / "crate_interp" / "data" / "photos"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("photos", ROOT / "pipelines" / "make_photos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """An empty folder to work in, and a data folder that must not be written."""
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_photos_are_small_complete_and_free(own_folder):
    images = open_coco("photos")
    assert 12 <= len(images) <= 16
    assert images.name == "photos"
    for record in images.records:
        assert max(record.read().shape) == max(record.hw) <= 320
    assert {image["license"] for image in images.annotations["images"]} == {4}
    assert sum(file.stat().st_size for file in PACKED.rglob("*") if file.is_file()) < 1_000_000
    assert not (own_folder / "data").exists()  # it is read where it lies


def test_every_photo_is_credited():
    text = (PACKED / "CREDITS.md").read_text()
    content = json.loads((PACKED / "annotations" / "instances_photos.json").read_text())
    for image in content["images"]:
        (line,) = (line for line in text.splitlines() if f"| {image['id']} |" in line)
        assert image["flickr_url"] in line
        assert f"| {image['coco_url'].split('/')[-2]} |" in line
        assert "creativecommons.org/licenses/by/2.0" in line
    assert "resized to 320 pixels" in text
    assert {file.name for file in (PACKED / "photos").iterdir()} == {
        image["file_name"] for image in content["images"]
    }


def test_boxes_and_areas_are_those_of_the_outlines():
    images = open_coco("photos")
    sizes = {record.image_id: record.hw for record in images.records}
    for entry in images.annotations["annotations"]:
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in entry["segmentation"]])
        corner, size = points.min(axis=0), np.ptp(points, axis=0)
        np.testing.assert_allclose(entry["bbox"], [*corner, *size], atol=0.02)
        drawn = draw_segmentation(entry["segmentation"], sizes[entry["image_id"]])
        assert drawn.sum() == pytest.approx(entry["area"], rel=0.1, abs=12)


def test_photos_are_the_official_pictures_and_annotations_scaled(shared_data, script, tmp_path):
    official = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in official["images"]}
    images = open_coco("photos")
    new = {record.image_id: record.hw for record in images.records if record.image_id in sizes}
    assert len(new) == 2
    by_id = {
        annotation["id"]: annotation
        for annotation in official["annotations"]
        if annotation["image_id"] in new
    }
    own = [entry for entry in images.annotations["annotations"] if entry["image_id"] in new]
    assert {entry["id"] for entry in own} == set(by_id)
    for entry in own:
        source, (height, width) = by_id[entry["id"]], sizes[entry["image_id"]]
        down, right = new[entry["image_id"]][0] / height, new[entry["image_id"]][1] / width
        assert entry["category_id"] == source["category_id"]
        assert entry["area"] == pytest.approx(source["area"] * down * right, rel=1e-12)
        scales = np.array([right, down, right, down])
        np.testing.assert_allclose(entry["bbox"], np.array(source["bbox"]) * scales)
        for polygon, original in zip(entry["segmentation"], source["segmentation"], strict=True):
            scaled = np.array(original).reshape(-1, 2) * (right, down)
            np.testing.assert_allclose(np.array(polygon).reshape(-1, 2), scaled)
    script.write_photos(shared_data / "coco", tmp_path, dict.fromkeys(new, "val2017"))
    again = json.loads((tmp_path / "annotations" / "instances_photos.json").read_text())
    assert again["annotations"] == sorted(own, key=lambda entry: list(new).index(entry["image_id"]))
    for line in (tmp_path / "CREDITS.md").read_text().splitlines():
        assert line in (PACKED / "CREDITS.md").read_text()
    others = {image["id"]: "val2017" for image in official["images"] if image["license"] != 4}
    with pytest.raises(ValueError, match="expected licence 4"):
        script.write_photos(shared_data / "coco", tmp_path, others)


@pytest.mark.parametrize(("old", "new"), [((8, 6), (4, 3)), ((7, 5), (3, 4)), ((4, 4), (4, 4))])
def test_crowds_are_sampled_at_the_centres_of_pixels(script, old, new):
    mask = np.random.default_rng(0).random(old) < 0.5
    for rle in (encode_masks(mask[None])[0], _runs(mask)):
        small = decode_mask(script.scaled_segmentation(rle, old, new))
        assert small.shape == new
        for y, x in np.ndindex(*new):
            centre = int((y + 0.5) * old[0] / new[0]), int((x + 0.5) * old[1] / new[1])
            assert small[y, x] == mask[centre]


def _runs(mask):
    values = mask.ravel(order="F")
    counts, value = [], False
    while values.size:
        run = int(np.argmin(values == value)) if (values != value).any() else values.size
        counts.append(run)
        values, value = values[run:], not value
    return {"size": list(mask.shape), "counts": counts}


def test_no_picture_is_enlarged(script):
    assert script.scaled_size((640, 427)) == (320, 214)
    assert script.scaled_size((100, 90)) == (100, 90)
    assert script.scaled_size((640, 1)) == (320, 1)


def test_a_file_or_folder_of_the_name_comes_first(own_folder):
    assert built_in_name(Path("photos")) == "photos"
    assert built_in_name(Path("photos/x")) is None
    assert built_in_name(own_folder / "photos") is None
    Path("photos").mkdir()
    assert built_in_name(Path("photos")) is None
    with pytest.raises(InputError, match="expected ImageSets/"):
        open_labelled(Path("photos"), "val")
    Path("photos").rmdir()
    Path("photos").touch()
    assert built_in_name(Path("photos")) is None


def test_a_split_of_the_name_comes_first(own_folder):
    split = own_folder / "data" / "coco"
    shutil.copytree(PACKED, split)
    assert coco_annotation_file("photos").is_relative_to(split)
    assert coco_annotation_file("photos", split).is_relative_to(split)
    shutil.rmtree(split)
    assert coco_annotation_file("photos").is_relative_to(PACKED)
    with pytest.raises(InputError, match=r"no such annotation file; .*leave --coco-root out"):
        coco_annotation_file("photos", own_folder / "nothing")


def test_photos_have_classes_and_objects(own_folder):
    found = open_labelled(Path("photos"), "val")
    assert found.images.name == "photos-val"
    assert len(found.classes) == 81
    for record in found.images.records:
        labels, objects = (read(record, record.hw) for read in (found.labels_of, found.objects_of))
        assert ((labels > 0) == (objects > 0)).all()
        assert labels.any()
    first = found.labels_of(found.images.records[0], found.images.records[0].hw)
    names = [found.classes[label] for label in np.unique(first)]
    assert names == ["background", "fire hydrant", "dog"]
    with pytest.raises(InputError, match="expected val, the one part of photos, found 'train'"):
        open_labelled(Path("photos"), "train")


def _annotations():
    return open_coco("photos").annotations["annotations"]


def test_largest_objects_are_salient(own_folder):
    found = open_largest_objects("photos")
    assert len(found.images) == 15
    record = found.images.records[0]
    largest = max(
        (entry for entry in _annotations() if entry["image_id"] == record.image_id),
        key=lambda entry: entry["area"],
    )
    drawn = draw_segmentation(largest["segmentation"], record.hw)
    assert (found.labels_of(record, record.hw) == drawn).all()


def _set(monkeypatch, tmp_path, annotations, categories=None):
    """Declare a set `tiny` of one image, 4 x 6 pixels."""
    (tmp_path / "tiny").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "tiny" / "a.png")
    whole = {"image_id": 1, "iscrowd": 0, "area": 1.0, "category_id": 7}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [
            {**whole, "id": number, **entry} for number, entry in enumerate(annotations, 1)
        ],
        "categories": categories or [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_tiny.json").write_text(json.dumps(content))
    entry = BuiltInSet("one image", "tiny", lambda part, root: tmp_path)
    monkeypatch.setitem(BUILT_IN_SETS, "tiny", entry)
    return open_labelled(Path("tiny"), "val")


def _columns(*columns):
    mask = np.zeros((1, 4, 6), bool)
    mask[:, :, list(columns)] = True
    return encode_masks(mask)[0]


def test_small_objects_lie_over_large_ones_and_crowds_are_void(own_folder, monkeypatch):
    found = _set(
        monkeypatch,
        own_folder / "set",
        [
            {"segmentation": _columns(1), "area": 4, "category_id": 5},
            {"segmentation": _columns(0, 1, 2), "area": 12},
            {"segmentation": _columns(2, 3, 4), "area": 99, "iscrowd": 1},
        ],
    )
    (record,) = found.images.records
    assert found.classes == ("background", "cat", "dog")
    assert found.labels_of(record, (4, 6))[0].tolist() == [2, 1, 2, VOID, VOID, 0]
    assert found.objects_of(record, (4, 6))[0].tolist() == [2, 1, 2, VOID, VOID, 0]
    salient = open_largest_objects("tiny")  # a crowd is no object
    assert salient.labels_of(record, (4, 6))[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert "`tiny` (one image)" in built_in_choices()  # one entry, and commands know the set


def test_a_set_without_annotations_is_background(own_folder, monkeypatch):
    found = _set(monkeypatch, own_folder / "set", [])
    assert not found.labels_of(found.images.records[0], (4, 6)).any()
    assert len(open_largest_objects("tiny").images) == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"segmentation": None}, "annotation 1 of .*a.png: expected"),
        ({"category_id": 6}, "expected a category of the file, .*found category 6"),
        ({"area": "large"}, "annotation 1: area: expected a number, found 'large'"),
    ],
)
def test_damaged_annotations_are_named(own_folder, monkeypatch, entry, message):
    found = _set(monkeypatch, own_folder / "set", [{"segmentation": _columns(0), **entry}])
    with pytest.raises(InputError, match=message):
        found.labels_of(found.images.records[0], (4, 6))


def test_more_categories_than_labels_are_refused(own_folder, monkeypatch):
    categories = [{"id": number, "name": str(number)} for number in range(300)]
    with pytest.raises(InputError, match="less than 255 categories, found 300"):
        _set(monkeypatch, own_folder / "set", [], categories)


MODEL = ["--model", "demo", "--size", "48", "--workers", "0", "--limit", "3"]


@pytest.mark.parametrize(
    "command",
    [
        ["maskcut", "--coco", "photos"],
        ["attention", "photos"],
        ["pca", "photos"],
        ["benchmark", "saliency", "photos"],
        ["benchmark", "voc2012", "photos", "--per", "object"],
        ["benchmark", "semantic", "photos"],
    ],
)
def test_commands_open_the_photos(own_folder, command):
    output = "x.png" if command[0] == "pca" else "run"
    assert main([*command, *MODEL, "--output", output]) == 0
    if command[0] == "maskcut":
        assert main(["evaluate", "run/results.json", "--coco", "photos"]) == 0
    assert not (own_folder / "data").exists()


def test_a_folder_needs_the_masks_of_its_salient_objects(own_folder, capsys):
    Path("mine").mkdir()
    assert main(["benchmark", "saliency", "mine", *MODEL, "--output", "run"]) == 2
    assert "mine: expected the folder of its masks as well" in capsys.readouterr().err
    assert main(["benchmark", "saliency", "nothing", *MODEL, "--output", "run"]) == 2


def test_download_lists_the_built_in_sets(capsys):
    assert main(["download", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"`--coco {name}`" in printed for name in BUILT_IN_SETS)
