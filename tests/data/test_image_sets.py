"""Folders as sets: equal names, folders in names, annotations of sets with folders."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from crate_interp.data.image_sets import open_images
from crate_interp.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / name)


def annotate(path, *file_names):
    images = [
        {"id": 10 * number, "file_name": name, "height": 6, "width": 8}
        for number, name in enumerate(file_names, start=1)
    ]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return path


def named(images):
    return [(record.image_id, record.file_name) for record in images.records]


def test_names_are_those_of_the_files_where_these_differ(tmp_path):
    touch(tmp_path, "one/a.png", "two/b.png")
    images = open_images([tmp_path / "one", tmp_path / "two"])
    assert named(images) == [(1, "a.png"), (2, "b.png")]


@pytest.mark.parametrize("by_file", [False, True])
def test_equal_names_are_told_apart_by_their_folders(tmp_path, monkeypatch, by_file):
    touch(tmp_path, "set/one/a.png", "set/two/a.png", "set/two/b.png")
    monkeypatch.chdir(tmp_path / "set" / "two")
    paths = ["../one/a.png", "a.png", "b.png"] if by_file else ["../one", "."]
    images = open_images(paths)
    assert named(images) == [(1, "one/a.png"), (2, "two/a.png"), (3, "two/b.png")]
    assert images.records[0].read().shape == (6, 8, 3)


def test_one_file_named_twice_is_one_image(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    assert named(open_images(["a.png", tmp_path / "a.png", tmp_path])) == [(1, "a.png")]


def test_recursive_names_have_their_folders(tmp_path):
    touch(tmp_path, "x/a.png", "b.png", "x/y/a.png")
    images = open_images([tmp_path], recursive=True)
    assert [record.file_name for record in images.records] == ["b.png", "x/a.png", "x/y/a.png"]


@pytest.mark.skipif(os.name == "nt", reason="names there are not bytes")
def test_a_name_that_is_not_utf_8_can_be_written_as_json(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    (record,) = open_images([tmp_path]).records
    assert json.loads(json.dumps(record.file_name).encode()) == "\\udcff.png"
    assert record.read().shape == (6, 8, 3)


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("below", [".", "train"])
@pytest.mark.parametrize("written", ["train/{}", "./train/{}", r"train\{}"])
def test_annotations_with_folders_in_names_fit_the_root_and_the_folder(
    tmp_path, recursive, below, written
):
    touch(tmp_path, "train/a.png", "train/b.png")
    names = [written.format(name) for name in ("a.png", "b.png")]
    annotations = annotate(tmp_path / "instances.json", *names)
    images = open_images([tmp_path / below], annotations, recursive)
    assert named(images) == [(10, names[0]), (20, names[1])]


def test_images_in_folders_that_are_not_annotated_are_left_out_and_counted(tmp_path, caplog):
    touch(tmp_path, "train/a.png", "val/b.png", "val/c.png")
    annotations = annotate(tmp_path / "instances.json", "train/a.png")
    assert named(open_images([tmp_path], annotations)) == [(10, "train/a.png")]
    assert "2 images in folders are not annotated; left out" in caplog.text
    touch(tmp_path, "d.png")
    with pytest.raises(InputError, match=r"d\.png: not among the images of .*instances\.json"):
        open_images([tmp_path], annotations)
    with pytest.raises(InputError, match=r"b\.png: not among the images of .*instances\.json"):
        open_images([tmp_path / "val"], annotations)
