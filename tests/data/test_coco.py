"""Sets of images: COCO splits, folders with and without annotations, and hostile files."""

import json
import logging
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.data import data_folder, scenes
from crate_interp.data.coco import coco_annotation_file, open_coco
from crate_interp.data.coco_files import check_coco, read_coco, source_of
from crate_interp.data.image_sets import open_images
from crate_interp.errors import InputError


def _image(number: int, file_name: str) -> dict:
    return {"id": number, "file_name": file_name, "height": 6, "width": 8}


def _coco(*images: dict) -> dict:
    return {
        "images": list(images),
        "annotations": [
            {"id": 5, "image_id": image["id"], "category_id": 3} for image in images[:1]
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }


def _write_split(root: Path, coco: dict, split: str = "val2017") -> Path:
    (root / split).mkdir(parents=True)
    for image in coco["images"]:
        if "/" not in image["file_name"]:
            pixels = np.zeros((6, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / image["file_name"])
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(coco))
    return path


def test_open_coco_reads_a_split_in_its_order(tmp_path):
    coco = _coco(_image(9, "b.jpg"), _image(2, "a.jpg"))
    _write_split(tmp_path, coco)
    images = open_coco("val2017", tmp_path)
    assert images.name == "val2017"
    assert [record.image_id for record in images.records] == [9, 2]
    assert images.records[1].file_name == "a.jpg"
    assert images.records[1].path == tmp_path / "val2017" / "a.jpg"
    assert images.records[1].hw == (6, 8)
    assert images.annotations == coco
    assert len(images.limit(1)) == 1
    assert len(images.limit(7)) == len(images.limit(None)) == 2
    with pytest.raises(InputError, match="found 0"):
        images.limit(0)


def test_open_coco_keeps_images_without_a_file(tmp_path):
    _write_split(tmp_path, _coco(_image(1, "a.jpg"), _image(2, "b.jpg")))
    (tmp_path / "val2017" / "a.jpg").unlink()
    assert [record.path.exists() for record in open_coco("val2017", tmp_path).records] == [
        False,
        True,
    ]


def test_open_coco_looks_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path))
    _write_split(tmp_path / "coco", _coco(_image(1, "a.jpg")), "train2017")
    assert data_folder() == tmp_path
    assert len(open_coco("train2017")) == 1
    monkeypatch.delenv("CRATE_INTERP_DATA")
    assert data_folder().name == "crate-interp"


def test_open_coco_draws_the_built_in_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path))
    write = scenes.write_scenes
    monkeypatch.setattr(scenes, "write_scenes", lambda folder, _, seed: write(folder, 2, seed))
    images = open_coco("demo")
    assert len(images) == 2
    assert all(record.path.is_file() for record in images.records)
    assert images.annotations["annotations"]
    assert coco_annotation_file("demo").is_relative_to(tmp_path)


def test_open_coco_says_where_scenes_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path / "file"))
    with pytest.raises(InputError, match="CRATE_INTERP_DATA"):
        open_coco("demo")


def test_open_coco_names_what_is_missing_and_the_command(tmp_path):
    command = "crate-interp download coco-val2017"
    with pytest.raises(InputError, match=rf"instances_val2017\.json.*{command}"):
        open_coco("val2017", tmp_path)
    path = _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    (tmp_path / "val2017" / "a.jpg").unlink()
    with pytest.raises(InputError, match=rf"{tmp_path / 'val2017'}: .*{command}"):
        open_coco("val2017", tmp_path)
    (tmp_path / "val2017").rmdir()
    with pytest.raises(InputError, match=rf"{tmp_path / 'val2017'}: .*{command}"):
        open_coco("val2017", tmp_path)
    path.write_text(json.dumps(_coco()))
    for split in ("", "../val2017", "a/b", "."):
        with pytest.raises(InputError, match="COCO split"):
            open_coco(split, tmp_path)


HOSTILE = [
    "/etc/passwd",
    "../secret.jpg",
    "a/../../b.jpg",
    "..",
    "..\\b.jpg",
    "C:\\b.jpg",
    "C:b.jpg",
]


@pytest.mark.parametrize("file_name", HOSTILE)
def test_file_name_outside_the_folder_is_refused(tmp_path, file_name):
    coco = _coco(_image(1, "a.jpg"), {**_image(2, "b.jpg"), "file_name": file_name})
    _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    annotations = tmp_path / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(coco))
    with pytest.raises(InputError, match=r"images\[1\].*"):
        open_coco("val2017", tmp_path)
    with pytest.raises(InputError, match=r"images\[1\].*"):
        open_images([tmp_path / "val2017"], annotations)


@pytest.mark.parametrize("file_name", ["", ".", "./", None, 7, "a\0b.jpg"])
def test_file_name_that_names_no_file_is_refused(tmp_path, file_name):
    _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    annotations = tmp_path / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(_coco({**_image(1, ""), "file_name": file_name})))
    with pytest.raises(InputError, match=r"images\[0\]: file_name: expected"):
        open_coco("val2017", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_symbolic_link_outside_the_folder_is_refused(tmp_path):
    _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    secret = tmp_path / "secret.jpg"
    secret.touch()
    picture = tmp_path / "val2017" / "a.jpg"
    picture.unlink()
    picture.symlink_to(secret)
    with pytest.raises(InputError, match="leads outside"):
        open_coco("val2017", tmp_path)
    # The folder itself may be a link: that is where the user keeps the images.
    picture.unlink()
    picture.touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "val2017").symlink_to(tmp_path / "val2017")
    (elsewhere / "annotations").symlink_to(tmp_path / "annotations")
    assert len(open_coco("val2017", elsewhere)) == 1


def test_open_images_numbers_images_in_the_order_of_names(tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).touch()
    images = open_images([tmp_path])
    assert images.name == tmp_path.name
    assert images.annotations is None
    assert [(r.image_id, r.file_name, r.hw) for r in images.records] == [
        (1, "a.png", None),
        (2, "b.png", None),
    ]


def test_open_images_takes_ids_from_annotations(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "set").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "set" / name).touch()
    annotations = tmp_path / "annotations.json"
    coco = _coco(_image(7, "b.png"), _image(3, "set/a.png"), _image(8, "not_here.png"))
    annotations.write_text(json.dumps(coco))
    images = open_images([tmp_path / "set"], annotations)
    assert [(r.image_id, r.file_name) for r in images.records] == [(3, "set/a.png"), (7, "b.png")]
    assert images.records[0].hw == (6, 8)
    assert images.annotations == coco
    assert "1 images are not among the paths" in caplog.text


def test_open_images_refuses_images_without_annotation(tmp_path):
    (tmp_path / "a.png").touch()
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(_coco(_image(7, "b.png"))))
    with pytest.raises(InputError, match=r"a\.png: not among the images of .*annotations\.json"):
        open_images([tmp_path], annotations)


def test_open_images_refuses_two_files_for_one_annotation(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(_coco(_image(7, "a.png"))))
    with pytest.raises(InputError, match="are both"):
        open_images([tmp_path / "one", tmp_path / "two"], annotations)


def test_open_images_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        open_images([])
    with pytest.raises(InputError, match="found none"):
        open_images([tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"images: expected a value, found no such key"),
        (lambda c: c.pop("annotations"), r"annotations: expected a value, found no such key"),
        (lambda c: c.update(images={}), r"images: expected array, found object"),
        (lambda c: c["images"].append(1), r"images\[2\]: expected object, found int 1"),
        (
            lambda c: c["images"][1].pop("id"),
            r"images\[1\]\.id: expected a value, found no such key",
        ),
        (lambda c: c["images"][1].update(id="2"), r"images\[1\]\.id: expected int, found str '2'"),
        (lambda c: c["images"][1].update(id=1), r"images\[1\]: id 1 is not unique"),
        (lambda c: c["images"][1].update(height=0), r"images\[1\]\.height: .* found 0"),
        (lambda c: c["images"][1].pop("width"), r"images\[1\]: width: .* found no such key"),
        (lambda c: c["images"][1].update(width=8.5), r"images\[1\]\.width: .* found float 8\.5"),
        (lambda c: c["annotations"][0].pop("id"), r"annotations\[0\]\.id: "),
        (lambda c: c["annotations"][0].pop("image_id"), r"annotations\[0\]\.image_id: "),
        (lambda c: c["annotations"][0].pop("category_id"), r"annotations\[0\]\.category_id: "),
        (lambda c: c["annotations"][0].update(image_id=77), r"annotations\[0\]: image_id 77"),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"annotations\[1\]: id 5 is not"),
        (lambda c: c["categories"][0].pop("id"), r"categories\[0\]\.id: "),
    ],
)
def test_read_coco_names_the_file_and_the_key(tmp_path, change, message):
    coco = _coco(_image(1, "a.jpg"), _image(2, "b.jpg"))
    check_coco(coco, "right")
    change(coco)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(coco))
    with pytest.raises(InputError, match=rf"wrong\.json: {message}"):
        read_coco(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"null"])
def test_read_coco_refuses_what_is_no_json_object(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"wrong\.json: (not a JSON file|expected object)"):
        read_coco(path)


def test_read_coco_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"missing\.json: cannot be read: No such file"):
        read_coco(tmp_path / "missing.json")


def test_same_file_name_twice_is_refused(tmp_path):
    path = _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    path.write_text(json.dumps(_coco(_image(1, "a.jpg"), _image(2, "a.jpg"))))
    with pytest.raises(InputError, match="not unique"):
        open_coco("val2017", tmp_path)


def test_read_coco_takes_an_empty_set(tmp_path):
    path = tmp_path / "empty.json"
    path.write_text(json.dumps({"images": [], "annotations": []}))
    assert read_coco(path) == {"images": [], "annotations": []}


def test_open_coco_reads_real_pictures(shared_data):
    images = open_coco("val2017", shared_data / "coco")
    assert len(images) == 50
    for record in images.limit(5).records:
        with Image.open(record.path) as image:
            assert (image.height, image.width) == record.hw


def test_numpy_numbers_and_tuples_of_python_callers_are_taken():
    coco = _coco(_image(np.int64(1), "a.jpg"), {**_image(2, "b.jpg"), "height": np.uint8(6)})
    check_coco({**coco, "images": tuple(coco["images"])}, "here")
    for wrong in (np.True_, np.float32(3), True, 3.0):
        with pytest.raises(InputError, match=r"here: images\[0\]\.id: expected int, found"):
            check_coco(_coco({**_image(1, "a.jpg"), "id": wrong}), "here")
    with pytest.raises(InputError, match="here: expected what a JSON file holds, found"):
        check_coco(_coco({**_image(1, "a.jpg"), "id": object()}), "here")


HOSTILE_TEXTS = [
    ('"id": 1,', '"id": %s,' % ("9" * 400), r"images\[0\]\.id: "),
    (
        '"id": 1,',
        '"id": 9223372036854775808,',
        r"images\[0\]\.id: expected int <= 9223372036854775807",
    ),
    ('"id": 1,', '"id": true,', r"images\[0\]\.id: expected int, found bool"),
    ('"height": 6', '"height": 1000000', r"images\[0\]\.height: expected int <= 65536, found 10*"),
    ('"height": 6', '"height": -1', r"images\[0\]\.height: expected int >= 1, found -1"),
    (
        '"height": 6, "width": 8',
        '"height": 65536, "width": 65536',
        r"images\[0\]: expected at most",
    ),
    ('"a.jpg"', '"\\ud800.jpg"', "not a JSON file"),
    ('"height": 6', '"height": NaN', "not a JSON file"),
    ('"id": 1,', f'"id": {"[" * 5000}1{"]" * 5000},', ""),
    ('"categories": [', '"categories": [{"id": 3}, ', r"categories\[1\]: id 3 is not unique"),
]


@pytest.mark.parametrize(("part", "hostile", "message"), HOSTILE_TEXTS)
def test_hostile_annotation_files_are_refused_in_one_line(tmp_path, part, hostile, message):
    text = json.dumps(_coco(_image(1, "a.jpg")))
    assert part in text
    path = tmp_path / "wrong.json"
    path.write_text(text.replace(part, hostile, 1))
    with pytest.raises(InputError, match=rf"wrong\.json: {message}") as caught:
        read_coco(path)
    assert len(str(caught.value)) <= 500
    assert str(caught.value).isprintable()


def test_annotations_that_were_read_know_their_file(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(_coco(_image(1, "a.jpg"))))
    found = pickle.loads(pickle.dumps(read_coco(path)))  # as readers in processes get it
    assert found == json.loads(path.read_text())
    assert source_of(found) == str(path)
    assert source_of(dict(found)) == "ground truth"


@pytest.mark.parametrize("file_name", ["n" * 5000, "\u202e\n\x07.jpg", "a" * 300 + ".jpg"])
def test_odd_file_names_are_refused_in_one_line_or_taken(tmp_path, file_name):
    _write_split(tmp_path, _coco(_image(1, "a.jpg")))
    annotations = tmp_path / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(_coco({**_image(1, ""), "file_name": file_name})))
    (record,) = open_coco("val2017", tmp_path).records
    with pytest.raises(InputError, match=r"cannot be read.*instances_val2017\.json") as caught:
        record.read()
    assert len(str(caught.value)) <= 500
    with pytest.raises(InputError, match=r"a\.jpg: not among"):
        open_images([tmp_path / "val2017"], annotations)


def test_size_that_is_not_annotated_names_both_files(tmp_path):
    coco = _coco({**_image(1, "a.jpg"), "height": 7})
    _write_split(tmp_path, coco)
    (record,) = open_coco("val2017", tmp_path).records
    with pytest.raises(InputError, match=r"a\.jpg: \(6, 8\) .* say \(7, 8\), .*_val2017\.json"):
        record.read()
