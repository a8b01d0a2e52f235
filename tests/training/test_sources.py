"""Several sources are one data set: classes by name, a split by names, pictures left out."""

import dataclasses
import hashlib
import json
import shutil
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open

from crate_interp.cli import main
from crate_interp.errors import InputError
from crate_interp.training import Recipe, open_data, read_recipe, read_run_recipe, train
from crate_interp.training.selection import is_held_out
from crate_interp.training.sources import Source
from tests.training.test_loop import StoppedError, assert_same_weights

CATS, DOGS = {"Cat": "cat", "Dog": "dog"}, {"n01": "dog", "n02": "fox", "BACKGROUND": None}


def fill(folder, counts, first=0):
    """Write `CLASS/NUMBER.png`, as many as are counted of each class; no two alike."""
    value = first
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = (value % 256, value // 256, 7)
            Image.new("RGB", (8, 8), colour).save(folder / name / f"{number}.png")
            value += 1
    return folder


def pack(folder, path):
    with tarfile.open(path, "w") as archive:
        for picture in sorted(folder.rglob("*.png")):
            archive.add(picture, "./" + picture.relative_to(folder).as_posix())


@pytest.fixture
def root(tmp_path):
    """Two sources: `pets` of class folders, `web` of train/ and val/."""
    root = tmp_path / "data"
    fill(root / "pets", {"Cat": 12, "Dog": 9})
    fill(root / "web" / "train", {"n01": 8, "n02": 7, "BACKGROUND": 3}, first=100)
    fill(root / "web" / "val", {"n01": 4, "n02": 5}, first=200)
    return root


SOURCES = (
    Source("pets", "pets", classes=CATS),
    Source("web", "web", classes=DOGS, train_split="train+val"),
)


def recipe_of(root, sources=SOURCES, **changes):
    basis = {"model": "crate_alpha_demo", "steps": 1, "batch_size": 2, "held_out": 0.25}
    return Recipe(**{**basis, "data": sources, "data_root": str(root), **changes})


def names_of(pictures):
    return dict(pictures.names())


def colours(pictures):
    """Class by colour: the pictures as they are read, not as they are listed."""
    read = map(pictures.__getitem__, range(len(pictures)))
    return {image.getpixel((0, 0)): pictures.classes[label] for image, label in read}


def test_classes_are_folded_renamed_left_out_and_sorted(root):
    data = open_data(recipe_of(root))
    assert data.training.classes == ("cat", "dog", "fox")
    assert data.validation.classes == data.training.classes
    assert data.num_classes == 3
    everything = {**names_of(data.training), **names_of(data.validation)}
    assert len(everything) == len(data.training) + len(data.validation) == 12 + 9 + 24
    assert everything["pets/Dog/3.png"] == everything["web/val/n01/3.png"] == "dog"
    assert everything["web/train/n02/0.png"] == "fox"
    assert not any("BACKGROUND" in name for name in everything)
    read = {**colours(data.training), **colours(data.validation)}
    assert len(read) == len(everything)
    assert {read[value, 0, 7] for value in (*range(12, 21), *range(100, 108))} == {"dog"}
    assert {read[value, 0, 7] for value in (*range(108, 115), *range(204, 209))} == {"fox"}
    assert data.training.counts().keys() == {"pets", "web"}


def test_classes_that_are_not_named_keep_their_names(root):
    sources = (Source("web", "web/train", classes={"n02": "fox"}), Source("pets", "pets"))
    data = open_data(recipe_of(root, sources, held_out=0))
    assert data.training.classes == ("BACKGROUND", "Cat", "Dog", "fox", "n01")
    assert data.validation is None


def test_held_out_pictures_are_those_of_the_rule(root):
    data = open_data(recipe_of(root))
    everything = {**names_of(data.training), **names_of(data.validation)}
    expected = {
        name for name in everything if int(hashlib.sha1(name.encode()).hexdigest(), 16) % 4 == 0
    }
    assert names_of(data.validation).keys() == expected
    assert 4 < len(expected) < 20


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.05, 1 / 20), (0.3, 0.3), (0.999, 1)])
def test_share_of_held_out_pictures(share, expected):
    held_out = [is_held_out(f"some/{number}.jpg", share) for number in range(4000)]
    assert np.mean(held_out) == pytest.approx(expected, abs=0.02)
    if share == 0.3:  # who is held out of less is held out of more
        more = [is_held_out(f"some/{number}.jpg", 0.6) for number in range(4000)]
        assert sum(m for m, h in zip(more, held_out, strict=True) if h) > 0


def test_split_is_the_same_elsewhere_and_in_another_order(root, tmp_path):
    before = open_data(recipe_of(root)).validation
    colours_before = colours(before)
    elsewhere = tmp_path / "else" / "where"
    shutil.move(root, elsewhere)
    (elsewhere / "pets").rename(elsewhere / "animals")
    pets, web = SOURCES
    moved = (web, dataclasses.replace(pets, data="animals"))
    after = open_data(recipe_of(elsewhere, moved)).validation
    assert names_of(after) == names_of(before)
    assert colours(after) == colours_before


def test_one_folder_is_a_list_of_one(root):
    single = open_data(recipe_of(root, "pets"))
    listed = open_data(recipe_of(root, (Source("pets", "pets"),)))
    for one, other in ((single.training, listed.training), (single.validation, listed.validation)):
        assert list(one.names()) == list(other.names())
        assert one.classes == other.classes == ("Cat", "Dog")
        assert colours(one) == colours(other)


def test_only_source_that_renames_nothing_keeps_its_own_labels(tmp_path):
    root = fill(tmp_path / "numbered", {"10": 3, "9": 3})
    data = open_data(recipe_of(tmp_path, str(root), held_out=None, validation_split=None))
    assert data.training.classes == ("9", "10")


def test_tar_is_a_source_like_the_folder_it_was_packed_of(root):
    folders = open_data(recipe_of(root))
    expected = colours(folders.validation)
    for split in ("train", "val"):
        pack(root / "web" / split, root / f"{split}.tar")
    pack(root / "pets", root / "pets.tar")
    shutil.rmtree(root / "web")
    shutil.rmtree(root / "pets")
    (root / "web").mkdir()
    for split in ("train", "val"):
        (root / f"{split}.tar").rename(root / "web" / f"{split}.tar")
    pets, web = SOURCES
    tars = open_data(recipe_of(root, (dataclasses.replace(pets, data="pets.tar"), web)))
    assert names_of(tars.training) == names_of(folders.training)
    assert names_of(tars.validation) == names_of(folders.validation)
    assert colours(tars.validation) == expected


def test_sources_may_have_splits_of_their_own(root):
    pets, web = SOURCES
    web = dataclasses.replace(web, train_split="train", validation_split="val")
    data = open_data(recipe_of(root, (dataclasses.replace(pets, held_out=0), web), held_out=None))
    assert data.validation.counts() == {"web": 9}
    assert data.training.counts() == {"pets": 21, "web": 15}


def test_validation_may_lack_classes_that_are_trained_on(root):
    shutil.rmtree(root / "web" / "val" / "n01")
    data = open_data(recipe_of(root, "web", held_out=None, validation_split="val"))
    assert data.training.classes == data.validation.classes == ("BACKGROUND", "n01", "n02")
    assert set(colours(data.validation).values()) == {"n02"}
    fill(root / "web" / "val", {"n03": 1}, first=300)
    with pytest.raises(InputError, match=r"training and validation differ in classes \['n03'\]"):
        open_data(recipe_of(root, "web", held_out=None, validation_split="val"))


def test_excluded_pictures_are_left_out(root, tmp_path):
    list_file = tmp_path / "excluded.txt"
    list_file.write_text(
        "# seen twice\npets/Cat/3.png\n\n  web/val/n02/0.png\nweb/train/n01/7.png\n"
    )
    before, after = open_data(recipe_of(root)), open_data(recipe_of(root, exclude=str(list_file)))
    excluded = {"pets/Cat/3.png", "web/val/n02/0.png", "web/train/n01/7.png"}
    assert names_of(after.validation).keys() == names_of(before.validation).keys() - excluded
    assert names_of(after.training).keys() == names_of(before.training).keys() - excluded


@pytest.mark.parametrize("text", ["", "# nothing yet\n\n"])
def test_empty_list_excludes_nothing(root, tmp_path, text):
    (tmp_path / "none.txt").write_text(text)
    data = open_data(recipe_of(root, exclude=str(tmp_path / "none.txt")))
    assert names_of(data.training) == names_of(open_data(recipe_of(root)).training)


def test_excluded_picture_that_is_not_there_is_counted_in_a_warning(root, tmp_path, caplog):
    list_file = tmp_path / "excluded.txt"
    list_file.write_text("pets/Cat/3.png\npets/Cat/666.png\npets/Dog/777.png\n")
    open_data(recipe_of(root, exclude=str(list_file)))
    assert "2 of 3 pictures of source pets are not there, the first 'Cat/666.png'" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pet/Cat/3.png", "line 1: expected SOURCE/PATH with a source of pets, web, found 'pet/C"),
        ("\npets", "line 2: expected SOURCE/PATH"),
        ("pets/", "line 1: expected SOURCE/PATH"),
        ("web/n01/0.png\nweb/n02/1.png", "found none of its 2 in the source"),
        (b"\xff\xfe", "expected a text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_wrong_list_is_refused(root, tmp_path, text, message):
    list_file = tmp_path / "excluded.txt"
    if text is not None:
        list_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        open_data(recipe_of(root, exclude=str(list_file)))


def test_class_of_which_nothing_is_left_to_train_on_is_refused(root, tmp_path):
    list_file = tmp_path / "excluded.txt"
    list_file.write_text("".join(f"pets/Cat/{number}.png\n" for number in range(12)))
    with pytest.raises(InputError, match="all of cat are held out or excluded"):
        open_data(recipe_of(root, exclude=str(list_file)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "web"), "source web: data web, train: expected a .*web"),
        (
            lambda root: shutil.rmtree(root / "web" / "val"),
            r"source web: data web, val: expected a folder 'val' in .*web, found train",
        ),
        (
            lambda root: shutil.rmtree(root / "pets" / "Dog"),
            r"source pets: data pets: classes: expected a class 'Dog', found 1: 'Cat'",
        ),
        (
            lambda root: [shutil.rmtree(root / "pets" / name) for name in ("Cat", "Dog")],
            r"source pets: data pets, train: Found 0 images",
        ),
        (
            lambda root: (root / "pets" / "Cat" / "0.png").write_bytes(b""),
            r"Cat/0\.png: not a readable image",
        ),
    ],
)
def test_missing_or_damaged_source_is_named(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        colours(open_data(recipe_of(root, held_out=0)).training)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ((), {}, "expected one source or more, found an empty list"),
        ((Source("a/b", "x"),), {}, "source 1: name: expected letters, digits.*'a/b'"),
        ((Source("", "x"),), {}, "source 1: name: expected letters"),
        ((Source("a", "x"), Source("a", "y")), {}, "name: expected one of its own, found a twice"),
        ((Source("a", "scenes"),), {}, "source 1: data: scenes have no pictures"),
        ((Source("a", "x", held_out=1),), {}, "source 1: held_out: expected 0 to 1, and less"),
        (
            (Source("a", "x", held_out=0.1, validation_split="val"),),
            {},
            "source 1: give either held_out or validation_split",
        ),
        ((Source("a", "x", classes={"b": " "}),), {}, "classes: 'b': expected a name, or null"),
        ("x", {"held_out": -0.1}, "held_out: expected 0 to 1"),
        ("x", {"validation_split": "val"}, "expected no validation_split beside it, found 'val'"),
    ],
)
def test_sources_that_contradict_one_another_are_refused(data, changes, message):
    with pytest.raises(InputError, match=message):
        recipe_of("", data, **changes)


def test_share_that_holds_out_nothing_is_refused(root):
    with pytest.raises(InputError, match="held_out takes none of 21; raise it"):
        open_data(recipe_of(root, "pets", held_out=1e-9))


@pytest.mark.parametrize("changes", [{}, {"workers": 1, "exclude": True}])
def test_run_over_sources_goes_on_bit_equal(settings, root, tmp_path, changes):
    if changes.get("exclude"):
        changes["exclude"] = str(tmp_path / "excluded.txt")
        (tmp_path / "excluded.txt").write_text("pets/Cat/3.png\n")
    changes = {**settings, "batch_size": 8, "save_every": 1, "crop_area": (0.5, 1.0), **changes}
    del changes["data"], changes["validation_split"]
    recipe = recipe_of(root, **changes)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    result = train(recipe, tmp_path / "whole")
    assert result.accuracy is not None

    def stop(metrics, _):
        if metrics.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "parts", stop)
    assert train(recipe, tmp_path / "parts") == result
    assert_same_weights(*(tmp_path / name / "model.safetensors" for name in ("whole", "parts")))


def test_records_do_not_say_where_data_lay(settings, root, tmp_path):
    (tmp_path / "excluded.txt").write_text("pets/Cat/3.png\n")
    pets, web = SOURCES
    sources = (pets, dataclasses.replace(web, data=str(root / "web")))
    changes = {**settings, "exclude": str(tmp_path / "excluded.txt"), "batch_size": 8, "steps": 2}
    del changes["data"], changes["validation_split"]
    path = write_recipe(tmp_path / "recipes", **changes)
    content = yaml.safe_load(path.read_text())
    content["data"][1]["data"] = sources[1].data
    path.write_text(yaml.safe_dump(content))
    command = ["train", str(path), "--output", str(tmp_path / "run"), "--set", f"data_root={root}"]
    assert main(command) == 0
    with safe_open(tmp_path / "run" / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert not any(str(tmp_path) in text for text in metadata.values())
    assert json.loads(metadata["classes"]) == ["cat", "dog", "fox"]
    record = json.loads(metadata["training"])
    assert [source["data"] for source in record["recipe"]["data"]] == ["pets", "web"]
    assert record["recipe"]["exclude"] == "excluded.txt"
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    assert {**record["data"], "data_root": str(root)} == kept
    recipe = read_run_recipe(tmp_path / "run")
    assert (recipe.data, recipe.data_root) == (sources, str(root))
    assert read_run_recipe(tmp_path / "run", ["data_root=/else"]).data_root == "/else"
    counts = record["data"]["sources"]
    assert sum(counts["pets"].values()) == 20
    assert sum(sum(parts.values()) for parts in counts.values()) == 44
    assert len(record["data"]["names_sha256"]) == 64


def test_run_goes_on_where_the_data_moved_and_refuses_others(settings, root, tmp_path):
    changes = {**settings, "batch_size": 8, "save_every": 1}
    del changes["data"], changes["validation_split"]
    (tmp_path / "run").mkdir()

    def stop(metrics, _):
        if metrics.step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe_of(root, **changes), tmp_path / "run", stop)
    moved = root.rename(tmp_path / "moved")
    extra = fill(moved / "new", {"Cat": 1}, first=400) / "Cat" / "0.png"
    extra = extra.rename(moved / "pets" / "Cat" / "99.png")
    with pytest.raises(InputError, match=r"data\.json: a run on other data \(.*names_sha256 was"):
        train(recipe_of(moved, **changes), tmp_path / "run")
    extra.unlink()
    assert train(recipe_of(moved, **changes), tmp_path / "run").finished


def test_before_the_first_checkpoint_the_data_may_change(settings, root, tmp_path):
    changes = {**settings, "batch_size": 8, "held_out": None, "validation_split": None, "steps": 2}
    del changes["data"]
    damaged = root / "pets" / "Cat" / "0.png"
    damaged.write_bytes(b"")
    everything = {**changes, "batch_size": 21}
    with pytest.raises(InputError, match="not a readable image"):
        train(recipe_of(root, "pets", **everything), tmp_path)
    damaged.unlink()
    assert train(recipe_of(root, "pets", **changes), tmp_path).finished
    assert json.loads((tmp_path / "data.json").read_text())["pictures"] == 20
    (tmp_path / "data.json").write_text("[]")
    with pytest.raises(InputError, match=r"data\.json: expected object, found array"):
        train(recipe_of(root, "pets", **changes), tmp_path)


def write_recipe(folder, **changes):
    folder.mkdir(exist_ok=True)
    content = {
        "model": "crate_alpha_demo",
        "steps": 1,
        "batch_size": 2,
        "held_out": 0.25,
        "data": [
            {"name": "pets", "data": "pets", "classes": CATS},
            {"name": "web", "data": "web", "classes": DOGS, "train_split": "train+val"},
        ],
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def test_recipe_file_lists_sources_and_excludes_by_a_file_beside_it(root, tmp_path):
    path = write_recipe(tmp_path / "recipes", exclude="excluded.txt")
    with pytest.raises(InputError, match=r"exclude: expected a file .*recipes/excluded\.txt"):
        read_recipe(path)
    (tmp_path / "recipes" / "excluded.txt").write_text("web/val/n01/0.png\n")
    recipe = read_recipe(path, [f"data_root={root}"])
    assert recipe.data == SOURCES
    data = open_data(recipe)
    assert len(data.training) + len(data.validation) == 44


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["pets"], r"data: source 1: expected a mapping of keys, found 'pets'"),
        ([{"data": "pets"}], r"data: source 1: no key 'name': a source has one of its own"),
        ([{"name": "pets"}], r"data: source 1: no key 'data': a source says where"),
        (
            [{"name": "pets", "data": "pets", "class": {}}],
            r"data: source 1: unknown key 'class'; did you mean 'classes'\?",
        ),
        (
            [{"name": "pets", "data": "pets", "classes": {"Cat": 3}}],
            r"data: source 1: classes",
        ),
        ([], "data: expected one source or more, found an empty list"),
        (7, "data: expected a text or a list, found 7"),
    ],
)
def test_wrong_sources_of_a_recipe_file_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        read_recipe(write_recipe(tmp_path, data=data))
