"""Class folders in tar files, and torchvision's data sets, are the same pictures."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import Flowers102

from crate_interp.errors import InputError
from crate_interp.training import Recipe, open_data, train


def pack(folder, path, prefix=""):
    with tarfile.open(path, "w") as archive:
        for picture in sorted(folder.rglob("*.*")):
            archive.add(picture, prefix + picture.relative_to(folder).as_posix())
    return path


def contents(pictures):
    return sorted((image.tobytes(), label) for image, label in map(pictures.__getitem__, range(64)))


@pytest.fixture(scope="module")
def folder_contents(picture_folder):
    recipe = Recipe(model="demo", steps=1, data=str(picture_folder), batch_size=8)
    return contents(open_data(recipe).training)


@pytest.mark.parametrize("workers", [0, 1])
def test_tar_of_class_folders_trains_as_the_folder_does(
    settings, picture_folder, tmp_path, folder_contents, workers
):
    pack(picture_folder / "train", tmp_path / "train.tar")
    pack(picture_folder / "train", tmp_path / "val.tar", prefix="./")
    changes = {"data": str(tmp_path), "validation_split": "validation", "workers": workers}
    recipe = Recipe(**{**settings, **changes})
    data = open_data(recipe)
    assert contents(data.training) == contents(data.validation) == folder_contents
    assert data.training.classes == data.validation.classes
    assert data.num_classes == 8
    (tmp_path / "run").mkdir()
    assert train(recipe, tmp_path / "run").accuracy is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "train.tar", "val.tar"]


def test_one_tar_and_a_folder_of_tars_are_data_too(
    settings, picture_folder, tmp_path, folder_contents
):
    whole = pack(picture_folder / "train", tmp_path / "whole.tar")
    recipe = Recipe(**{**settings, "data": str(whole)})
    assert contents(open_data(recipe).training) == folder_contents
    (tmp_path / "train").mkdir()
    for folder in (picture_folder / "train").iterdir():
        pack(folder, tmp_path / "train" / f"{folder.name}.tar")
    recipe = Recipe(**{**settings, "data": str(tmp_path)})
    training = open_data(recipe).training
    inner = tmp_path / "inner.tar"
    pack(tmp_path / "train", inner)
    assert contents(open_data(Recipe(**{**settings, "data": str(inner)})).training) == (
        folder_contents
    )
    assert contents(training) == folder_contents
    assert training._name(0).startswith(str(tmp_path / "train"))


def test_unreadable_picture_of_a_tar_is_named(settings, picture_folder, tmp_path):
    shutil.copytree(picture_folder / "train", tmp_path / "train")
    victim = sorted((tmp_path / "train").glob("*/*.png"))[0]
    victim.write_bytes(b"no picture")
    tar = pack(tmp_path / "train", tmp_path / "some.tar")
    recipe = Recipe(**{**settings, "data": str(tar), "batch_size": 64})
    name = f"{victim.parent.name}/{victim.name}"
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=rf"some\.tar: {name}: not a readable image"):
        train(recipe, tmp_path / "run")


def empty_tar(path):
    with tarfile.open(path, "w"):
        pass


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (lambda f: None, {"data": "none.tar"}, "data none.tar, train: "),
        (empty_tar, {"data": "x.tar"}, "data x.tar, train: "),
        (lambda f: f.write_bytes(b"no tar"), {"data": "x.tar"}, "data x.tar, train: "),
        (
            empty_tar,
            {"data": "x.tar", "validation_split": "validation"},
            "one tar file is one split",
        ),
        (empty_tar, {"data": "."}, r"expected train\.tar in \., found x\.tar"),
        (lambda f: None, {"data": "tfds/x"}, "a stream has no position"),
        (lambda f: None, {"data": "hfids/x"}, "a stream has no position"),
        (lambda f: None, {"data": "torch/flowers102"}, "not found or corrupted"),
        (lambda f: None, {"data": "torch/oxfordiiitpet"}, "(?i)dataset not found|Unknown value"),
    ],
)
def test_wrong_source_is_refused(settings, tmp_path, monkeypatch, make, changes, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.tar")
    recipe = Recipe(**{**settings, "data_root": str(tmp_path), **changes})
    with pytest.raises(InputError, match=message):
        open_data(recipe)


def test_pets_and_flowers_of_torchvision(settings, tmp_path, monkeypatch):
    pets, flowers = tmp_path / "oxford-iiit-pet", tmp_path / "flowers-102"
    for folder in (pets / "images", pets / "annotations", flowers / "jpg"):
        folder.mkdir(parents=True)
    lines = []
    for number, name in enumerate(("Abyssinian_1", "Abyssinian_2", "great_dane_1")):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(pets / "images" / f"{name}.jpg")
        lines.append(f"{name} {1 + number // 2} 1 1\n")
    (pets / "annotations" / "trainval.txt").write_text("".join(lines))
    recipe = {**settings, "data_root": str(tmp_path), "batch_size": 2}
    training = open_data(
        Recipe(**{**recipe, "data": "torch/oxfordiiitpet", "train_split": "trainval"})
    ).training
    assert training.classes == ("Abyssinian", "Great Dane")
    assert [training[index][1] for index in range(3)] == [0, 0, 1]

    for number in (1, 2, 3, 4):
        image = Image.new("RGB", (9, 9), (0, 60 * number, 0))
        image.save(flowers / "jpg" / f"image_{number:05}.jpg")
    scipy.io.savemat(flowers / "imagelabels.mat", {"labels": np.array([[5, 102, 1, 7]])})
    splits = {"trnid": [[3, 1]], "valid": [[2, 4]], "tstid": [[1]]}
    scipy.io.savemat(flowers / "setid.mat", splits)
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)
    changes = {"data": "torch/Flowers102", "train_split": "train+val", "num_classes": 102}
    training = open_data(Recipe(**{**recipe, **changes})).training
    assert [training[index][1] for index in range(len(training))] == [0, 4, 101, 6]
    assert training[1][0].getpixel((4, 4))[1] == pytest.approx(60, abs=4)


def test_real_tar_of_class_folders(settings, shared_data):
    folder = shared_data / "caltech101"
    recipe = Recipe(**{**settings, "data": str(folder), "validation_split": "validation"})
    data = open_data(recipe)
    assert (len(data.training), len(data.validation)) == (7303, 1406)
    assert data.num_classes == 101
    image, label = data.training[7000]
    assert min(image.size) == 104
    with tarfile.open(folder / "train.tar") as archive:
        name = data.training._name(7000).split(": ")[1]
        content = archive.extractfile(name).read()
    assert image.tobytes() == Image.open(io.BytesIO(content)).convert("RGB").tobytes()
    assert data.training.classes[label] == name.split("/")[0]
