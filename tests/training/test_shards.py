"""Shards are read by position, and a shard that is at fault is named."""

import io
import json
import re
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from crate_interp.data.tars import expand_braces
from crate_interp.errors import InputError
from crate_interp.training import Recipe, open_data, train
from crate_interp.training.shards import ShardReader


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path, files):
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def value_of(stream):
    return Image.open(stream).getpixel((0, 0))[0]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{0008..0010}.tar", ["a-0008.tar", "a-0009.tar", "a-0010.tar"]),
        ("a-{9..11}.tar", ["a-9.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("a{,-b}.tar", ["a.tar", "a-b.tar"]),
        ("", [""]),
    ],
)
def test_braces_are_written_out_as_a_shell_does(pattern, expected):
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{0..3.tar", "do not pair"),
        ("a-0}.tar", "do not pair"),
        ("a-{}.tar", "found {}"),
        ("a-{3}.tar", "found {3}"),
        ("a-{3..1}.tar", "a range that rises, found {3..1}"),
    ],
)
def test_wrong_braces_are_refused(pattern, message):
    with pytest.raises(InputError, match=re.escape(message)):
        expand_braces(pattern)


def test_without_braceexpand_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "braceexpand", None)  # an import of it fails
    with pytest.raises(InputError, match=r"braceexpand: pip install 'crate-interp\[train\]'"):
        expand_braces("a-{0..1}.tar")


def test_samples_are_those_of_a_plain_reading(tmp_path):
    long = "folder/" + "n" * 150  # does not fit a plain header
    write_shard(
        tmp_path / "s-0.tar",
        {
            "__meta__.json": b"{}",
            "a/000.PNG": png(10),
            "a/000.cls": b"3\n",
            "a/000.seg.png": png(99),
            "a/001.cls": b" 1",  # the label may come first
            "a/001.png": png(20),
            f"{long}.png": png(30),
            f"{long}.cls": b"0",
        },
    )
    write_shard(
        tmp_path / "s-1.tar",
        {
            "000.png": png(40),
            "000.json": json.dumps({"label": 7, "species": "2"}).encode(),
            ".hidden": b"?",
        },
    )
    reader = ShardReader(tmp_path, "s-{0..1}.tar")
    found = [(value_of(stream), label) for stream, label in map(reader.__getitem__, range(4))]
    assert found == [(10, 3), (20, 1), (30, 0), (40, 7)]
    assert (len(reader), len(list(reader.shards))) == (4, 2)
    assert reader.filename(2) == f"{long}.png"
    assert reader.filename(0, basename=True) == "000.PNG"
    assert reader.filename(3, absolute=True) == f"{tmp_path / 's-1.tar'}: 000.png"
    assert ShardReader(tmp_path, "s-1.tar", target_key="species")[0][1] == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"s\.tar: no images"),
        ({"__meta__.json": b"{}"}, r"s\.tar: no images"),
        ({"0.png": b""}, r"s\.tar: 0: no label, expected \.cls or \.json, found png"),
        ({"0.cls": b"1"}, r"s\.tar: 0: no image, found cls"),
        ({"0.png": b"", "0.cls": b"cat"}, r"0\.cls: expected a whole number, found 'cat'"),
        ({"0.png": b"", "0.cls": b""}, r"0\.cls: expected a whole number, found ''"),
        ({"0.png": b"", "0.cls": b"\xff"}, r"0\.cls: expected a whole number"),
        ({"0.png": b"", "0.json": b"{}"}, r"0\.json: no key 'label'"),
        ({"0.png": b"", "0.json": b"[1]"}, r"0\.json: no key 'label'"),
        ({"0.png": b"", "0.json": b"{"}, r"0\.json: no key 'label'"),
        ({"0.png": b"", "0.json": b'{"label": null}'}, r"0\.json: expected a whole number"),
        ({"0.png": b"", "0.json": b'{"label": 1.5}'}, r"0\.json: .*number, found 1\.5"),
        ({"0.png": b"", "0.PNG": b"", "0.cls": b"1"}, r"0\.PNG: occurs twice"),
    ],
)
def test_shard_at_fault_is_named(tmp_path, files, message):
    write_shard(tmp_path / "s.tar", files)
    with pytest.raises(InputError, match=message):
        ShardReader(tmp_path, "s.tar")


@pytest.mark.parametrize("content", [b"", b"no tar file" * 99, None], ids=["empty", "text", "cut"])
def test_file_that_is_no_tar_is_named(tmp_path, content):
    path = write_shard(tmp_path / "s.tar", {"0.cls": b"1", "0.png": np.zeros(9999).tobytes()})
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(InputError, match=r"s\.tar: not a readable tar file"):
        ShardReader(tmp_path, "s.tar")


def test_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(InputError, match="not a readable tar file, uncompressed"):
        ShardReader(tmp_path, "s.tar")


def test_missing_shards_are_named(tmp_path):
    write_shard(tmp_path / "s-1.tar", {"0.cls": b"1", "0.png": png(0)})
    with pytest.raises(InputError, match=r"2 of 3 shards missing: .*s-0\.tar"):
        ShardReader(tmp_path, "s-{0..2}.tar")


@pytest.fixture(scope="module")
def shard_folder(picture_folder, tmp_path_factory):
    """The 64 pictures as two shards; classes numbered by name."""
    root = tmp_path_factory.mktemp("shards")
    classes = sorted(path.name for path in (picture_folder / "train").iterdir())
    pictures = sorted((picture_folder / "train").glob("*/*.png"), key=lambda path: int(path.stem))
    for number in (0, 1):
        files = {}
        for picture in pictures[number::2]:
            files[f"{picture.stem}.png"] = picture.read_bytes()
            files[f"{picture.stem}.cls"] = str(classes.index(picture.parent.name)).encode()
        write_shard(root / f"train-{number}.tar", files)
    return root


def recipe_of(settings, folder, **changes):
    basis = {"data": f"wds/{folder}", "train_split": "train-{0..1}.tar", "num_classes": 8}
    return Recipe(**{**settings, **basis, **changes})


class StoppedError(Exception):
    pass


def test_training_on_shards_goes_on_bit_equal(settings, shard_folder, tmp_path):
    recipe = recipe_of(settings, shard_folder, workers=1, save_every=1, crop_area=(0.5, 1.0))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    train(recipe, tmp_path / "whole")

    def stop(metrics, _):
        if metrics.step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "parts", stop)
    assert train(recipe, tmp_path / "parts").finished
    whole, parts = ((tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.read_bytes()[-100000:] == parts.read_bytes()[-100000:]  # behind the record


def test_unreadable_picture_of_a_shard_is_named(settings, tmp_path):
    files = {"0.png": png(1), "0.cls": b"1", "x/1.jpg": b"no picture", "x/1.cls": b"0"}
    write_shard(tmp_path / "train-0.tar", files)
    recipe = recipe_of(settings, tmp_path, train_split="train-0.tar", batch_size=2)
    with pytest.raises(InputError, match=r"train-0\.tar: x/1\.jpg: not a readable image"):
        list(map(open_data(recipe).training.__getitem__, range(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "wds/no-such-folder"}, "no folder no-such-folder; the names of the shards"),
        ({"train_split": "train"}, r"expected the names of shards in .*\{0000\.\.0010\}"),
        ({"train_split": "x-{0..1}.tar"}, "2 of 2 shards missing"),
        ({"num_classes": None}, "does not say its classes: give num_classes"),
        ({"data_args": {"surprise": 1}}, "surprise"),
    ],
)
def test_wrong_recipe_of_shards_is_refused(settings, shard_folder, changes, message):
    with pytest.raises(InputError, match=message):
        open_data(recipe_of(settings, shard_folder, **changes))
