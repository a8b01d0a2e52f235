"""The commands `atlas` and `atoms`."""

import csv
import errno
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import InputError, Observer, load_backbone
from crate_interp.analysis import Atlas
from crate_interp.cli import main
from crate_interp.commands import atlas as task
from crate_interp.data import decode_mask, open_coco
from crate_interp.data.scenes import write_scenes
from crate_interp.hooks import written_dictionary
from crate_interp.runs import atlas_files, figure_files
from crate_interp.runs.atlas_files import read_atlas, read_thumbnail
from crate_interp.runs.run_folder import hold_folder

SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3}
MODEL = ["--weights", "random", "--model-args", json.dumps(SIZES), "--size", "24", "--workers", "0"]
PICTURES = {"cat/a": (40, 60), "cat/b": (30, 30), "cat/c": (500, 25), "dog/a": (24, 24)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, hw in PICTURES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (*hw, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def make(pictures, output, *options, model="crate_alpha_demo", sheet=("--sheet", "0")):
    command = ["atlas", str(pictures), "--model", model, *MODEL, "--output", str(output)]
    return main([*command, *sheet, *options])


@pytest.fixture(scope="module", params=["crate_alpha_demo", "crate_demo", "vit_demo"])
def made(pictures, tmp_path_factory, request):
    output = tmp_path_factory.mktemp("atlas") / request.param
    assert make(pictures, output, "--strongest", "2", model=request.param) == 0
    return output


@pytest.fixture(scope="module")
def alpha(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("atlas") / "crate_alpha_demo"
    assert make(pictures, output, "--strongest", "2") == 0
    return output


def observer_of(model):
    torch.manual_seed(0)
    return Observer(load_backbone(model, pretrained=False, **SIZES), size=24)


def codes_of(observer, path, block=1):
    site = "neurons" if "Vision" in type(observer.model).__name__ else "codes"
    with Image.open(path) as image:
        recorded = observer.activations([np.array(image)], [site], [block])
    return recorded.patch_features(site, block)[0].T


def test_atlas_is_that_of_a_plain_loop(pictures, made):
    stored = read_atlas(made)
    observer = observer_of(made.name)
    names = ["cat/a.png", "dog/a.png", "cat/b.png", "cat/c.png"]  # classes in turn
    codes = np.stack([codes_of(observer, pictures / name).clamp(min=0) for name in names])
    atlas = stored.atlas
    assert atlas.num_images == 4
    assert stored.source.classes == ("cat", "dog")
    assert stored.source.geometry.grid_hw == atlas.grid_hw == (6, 6)
    np.testing.assert_array_equal(atlas.fired_patches, (codes > 0).sum(axis=(0, 1)))
    np.testing.assert_array_equal(atlas.fired_images, (codes > 0).any(axis=1).sum(axis=0))
    maps = codes.mean(axis=0).T.reshape(-1, 6, 6)
    np.testing.assert_allclose(atlas.mean_map, maps, rtol=1e-5, atol=1e-6)
    for label, of_class in enumerate((codes[[0, 2, 3]], codes[[1]])):
        expected = of_class.mean(axis=(0, 1))
        np.testing.assert_allclose(atlas.class_means[label], expected, rtol=1e-4, atol=1e-6)
    for atom in range(atlas.num_atoms):
        strongest = sorted(codes[:, :, atom].max(axis=1), reverse=True)[:2]
        np.testing.assert_allclose(atlas.top_values[atom], strongest, rtol=1e-4, atol=1e-6)
        for image, patch, value in zip(
            atlas.top_images[atom], atlas.top_patches[atom], atlas.top_values[atom], strict=True
        ):
            if image >= 0:
                assert stored.names[image] == names[image - 1]
                assert codes[image - 1, patch, atom] == pytest.approx(value, rel=1e-4)


def test_folder_holds_page_sheet_and_thumbnails(alpha):
    page = (alpha / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data["atoms"]) == read_atlas(alpha).atlas.num_atoms
    for _, name, file, width, height in data["pictures"]:
        with Image.open(alpha / file) as thumbnail:
            assert thumbnail.size == (width, height)
        hw = PICTURES[name.removesuffix(".png")]
        assert (height, width) == ((384, 19) if hw == (500, 25) else hw)
    assert (alpha / "sheet.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(alpha / "sheet.png") as sheet:
        assert sheet.width > 700


def test_same_command_gives_the_same_index_and_replaces_it(pictures, tmp_path):
    output = tmp_path / "atlas"
    options = ["--batch-size", "2", "--block", "0"]
    assert make(pictures, output, *options) == 0
    files = {path: path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}
    (output / "thumbnails" / "000099.jpg").write_bytes(b"of another atlas")
    assert make(pictures, output, *options) == 0
    again = {path: path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}
    assert files == again
    assert read_atlas(output).source.block == 0


def test_limit_takes_pictures_of_all_classes(pictures, tmp_path):
    assert make(pictures, tmp_path, "--limit", "2") == 0
    stored = read_atlas(tmp_path)
    assert stored.atlas.num_images == 2
    assert set(stored.names.values()) == {"cat/a.png", "dog/a.png"}


def test_scenes_label_patches_by_their_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crate_interp.data.scenes.write_scenes", few_scenes)
    seen = {}

    class Builder(task.analysis.AtlasBuilder):
        def add(self, image, codes, labels=None):
            seen[image] = labels
            super().add(image, codes, labels)

    monkeypatch.setattr(task.analysis, "AtlasBuilder", Builder)
    assert make("demo", tmp_path / "atlas") == 0
    assert len(read_atlas(tmp_path / "atlas").source.classes) == 9
    scenes = open_coco("demo")
    for record in scenes.records:
        expected = np.full((6, 6), 8)
        for entry in scenes.annotations["annotations"]:
            if entry["image_id"] == record.image_id:
                mask = decode_mask(entry["segmentation"])
                for row, column in np.ndindex(6, 6):
                    y, x = (2 * row + 1) * record.hw[0] // 12, (2 * column + 1) * record.hw[1] // 12
                    if mask[y, x]:
                        expected[row, column] = entry["category_id"] - 1
        np.testing.assert_array_equal(seen[record.image_id].reshape(6, 6), expected)


def few_scenes(folder, count, seed):
    write_scenes(folder, min(count, 3), seed)


def test_image_that_cannot_be_read_is_named_and_left_out(pictures, tmp_path, capsys):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "cat" / "b.png").write_bytes(b"no picture")
    assert make(folder, tmp_path / "atlas") == 1
    assert "b.png: cannot be read" in capsys.readouterr().err
    assert read_atlas(tmp_path / "atlas").atlas.num_images == 3
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    assert make(folder, tmp_path / "atlas") == 2
    assert "expected an image or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block", "2"], "block 2 is out of range: the model has blocks 0 to 1"),
        (["--sheet", "96"], "sheet: atom 96 is out of range: the block has 0 to 95"),
        (["--strongest", "0"], "strongest: expected at least 1, found 0"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(
    pictures, tmp_path, capsys, options, message
):
    assert make(pictures, tmp_path / "atlas", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "atlas").exists()


def test_wrong_folders_are_named(pictures, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert make(empty, tmp_path / "atlas") == 2
    assert "empty: expected image files" in capsys.readouterr().err
    (tmp_path / "letter.txt").write_text("keep me")
    assert make(pictures, tmp_path) == 2
    assert "expected an empty folder or an atlas" in capsys.readouterr().err
    assert make(pictures, tmp_path / "letter.txt") == 2
    assert "letter.txt: expected a folder, found a file" in capsys.readouterr().err


def ask(picture, atlas, output, *options):
    command = ["atoms", str(picture), "--atlas", str(atlas), "--output", str(output)]
    return main([*command, "--count", "1", *options])


def shares_in(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {int(row["atom"]): float(row["share"]) for row in rows}, rows


def test_atoms_of_a_patch_are_those_of_a_plain_loop(pictures, made, tmp_path, capsys):
    picture, output = pictures / "cat" / "a.png", tmp_path / "atoms.png"
    assert ask(picture, made, output, "--patch", "35,22", "--count", "3") == 0
    observer = observer_of(made.name)
    token = codes_of(observer, picture)[5 * 6 + 2].double()
    columns = written_dictionary(observer.model, 1).double()
    written = columns @ token
    shares, rows = shares_in(output.with_suffix(".csv"))
    for atom in range(len(token)):
        expected = float(token[atom] * columns[:, atom] @ written / (written @ written))
        assert shares[atom] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 36 patches")
    assert [int(line.split()[0]) for line in lines[1:4]] == [int(row["atom"]) for row in rows[:3]]
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_atoms_of_a_mask_and_of_the_whole_picture(pictures, alpha, tmp_path, capsys):
    picture, output = pictures / "cat" / "a.png", tmp_path / "atoms.png"
    chosen = np.zeros((40, 60), np.uint8)
    chosen[32:, 20:30] = 255  # holds one centre: of row 5, column 2
    Image.fromarray(chosen).save(tmp_path / "mask.png")
    assert ask(picture, alpha, output, "--mask", str(tmp_path / "mask.png")) == 0
    by_mask, _ = shares_in(output.with_suffix(".csv"))
    assert ask(picture, alpha, output, "--patch", "35,22") == 0
    assert by_mask == shares_in(output.with_suffix(".csv"))[0]
    assert capsys.readouterr().out.count("1 of 36 patches;") == 2
    assert ask(picture, alpha, output) == 0
    assert "36 of 36 patches;" in capsys.readouterr().out
    assert sum(shares_in(output.with_suffix(".csv"))[0].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "40,0"], "pixel 40,0 lies outside the image: expected y from 0 to 39"),
        (["--patch", "0,-1"], "pixel 0,-1 lies outside the image"),
        (["--patch", "3"], "patch: expected Y,X in pixels, found '3'"),
        (["--patch", "0,0", "--mask", "black.png"], "give --patch Y,X or --mask FILE, not both"),
        (["--mask", "black.png"], "black.png: expected chosen pixels in the mask, found it black"),
        (["--mask", "small.png"], r"small.png: expected a mask of the image's (40, 60) pixels"),
        (["--mask", "corner.png"], "corner.png: no patch has its centre in the mask"),
        (["--mask", "none.png"], "none.png: cannot be read"),
        (["--count", "0"], "count: expected at least 1, found 0"),
        (["--output", "atoms.jpg"], "atoms.jpg: expected a file name that ends in .png"),
    ],
)
def test_wrong_choices_are_named(pictures, alpha, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((40, 60), np.uint8)
    Image.fromarray(mask).save("black.png")
    Image.fromarray(mask[:20]).save("small.png")
    mask[0, 0] = 255
    Image.fromarray(mask).save("corner.png")
    assert ask(pictures / "cat" / "a.png", alpha, "atoms.png", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("atoms.*"))


def test_atlas_of_another_model_is_refused(pictures, alpha, tmp_path, capsys):
    command = [pictures / "cat" / "a.png", alpha, tmp_path / "atoms.png"]
    assert ask(*command, "--model", "crate_demo") == 2
    error = capsys.readouterr().err
    assert "an atlas of another model: it was made of crate_alpha_demo" in error
    with np.load(alpha / "atlas.npz") as index:
        arrays = dict(index)
    about = json.loads(str(arrays["about"]))
    about["source"]["parameters_sha256"] = "0" * 64
    copy = tmp_path / "copy"
    shutil.copytree(alpha, copy)
    np.savez(copy / "atlas.npz", **arrays | {"about": np.array(json.dumps(about))})
    assert ask(command[0], copy, command[2]) == 2
    assert "of checksum 000000000000, found crate_alpha_demo" in capsys.readouterr().err
    about["source"]["model_args"]["num_heads"] = 5
    np.savez(copy / "atlas.npz", **arrays | {"about": np.array(json.dumps(about))})
    assert ask(command[0], copy, command[2]) == 2
    assert f"error: {copy}: the model of this atlas: " in capsys.readouterr().err


def test_weight_file_that_moved_can_be_named(pictures, tmp_path, capsys):
    model = load_backbone("demo")
    from crate_interp.weights import resolve_weights

    path = tmp_path / "weights.safetensors"
    shutil.copy(resolve_weights("demo"), path)
    command = ["atlas", str(pictures), "--model", "demo", "--weights", str(path), "--size", "24"]
    assert main([*command, "--workers", "0", "--output", str(tmp_path / "atlas")]) == 0
    source = read_atlas(tmp_path / "atlas").source
    assert source.weights == str(path)
    assert source.block == len(model.blocks) - 1
    moved = path.rename(tmp_path / "moved.safetensors")
    picture = pictures / "cat" / "a.png"
    assert ask(picture, tmp_path / "atlas", tmp_path / "a.png") == 2
    assert "weights.safetensors: no such weight file" in capsys.readouterr().err
    assert ask(picture, tmp_path / "atlas", tmp_path / "a.png", "--weights", str(moved)) == 0


def cut(arrays):
    return None


def without_an_array(arrays):
    return {name: value for name, value in arrays.items() if name != "mean_map"}


def of_other_shape(arrays):
    return arrays | {"fired_images": arrays["fired_images"][1:]}


def of_another_format(arrays):
    about = json.loads(str(arrays["about"])) | {"format": 99}
    return arrays | {"about": np.array(json.dumps(about))}


def without_names(arrays):
    about = json.loads(str(arrays["about"])) | {"names": {}}
    return arrays | {"about": np.array(json.dumps(about))}


def of_no_json(arrays):
    return arrays | {"about": np.array("{")}


def about_with(**changes):
    """The record with other values in it; of the source, by `source_`."""

    def damage(arrays):
        about = json.loads(str(arrays["about"]))
        of_source = {k.removeprefix("source_"): v for k, v in changes.items() if "source_" in k}
        about["source"] |= of_source
        about |= {k: v for k, v in changes.items() if "source_" not in k}
        return arrays | {"about": np.array(json.dumps(about))}

    return damage


def array_with(name, change):
    def damage(arrays):
        return arrays | {name: change(arrays[name].copy())}

    return damage


def first(value):
    def change(array):
        array.flat[0] = value
        return array

    return change


GEOMETRY = {"original_hw": [24, 24], "input_hw": [24, 24], "patch_hw": [4, 4], "stride_hw": None}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "not an atlas, or damaged"),
        (without_an_array, "not an atlas, or damaged: .*mean_map"),
        (of_other_shape, "fired_images: expected shape"),
        (of_another_format, "expected format 1, found 99"),
        (without_names, "its parts do not belong together"),
        (of_no_json, "not an atlas, or damaged"),
        (lambda a: a | {"about": np.arange(3)}, "about: expected a text, found int64"),
        (lambda a: a | {"about": np.array(["a", "b"])}, "about: expected a text"),
        (lambda a: a | {"about": np.array("[1]")}, "expected object, found array"),
        (
            lambda a: a | {"about": np.array('{"format": 1}')},
            "source: expected a value, found no such key",
        ),
        (about_with(source_block="1"), "source.block: expected"),
        (about_with(source_model=None), "source.model: expected"),
        (about_with(source_classes="cat"), "source.classes: expected"),
        (about_with(source_classes=["cat"]), "its parts do not belong together"),
        (about_with(source_geometry=[1]), "source.geometry: expected"),
        (about_with(source_geometry={**GEOMETRY, "patch_hw": [0, 4]}), "expected 1 pixel or more"),
        (about_with(source_geometry={**GEOMETRY, "stride_hw": [4, 0]}), "expected 1 pixel or more"),
        (about_with(source_geometry={**GEOMETRY, "input_hw": [2, 2]}), "smaller than a patch"),
        (about_with(source_geometry={**GEOMETRY, "input_hw": [24, 10**18]}), "do not belong"),
        (about_with(names={"one": "a"}), "names: "),
        (about_with(names={"1": 5}), "names"),
        (about_with(thumbnails={"1": "../../precious.jpg"}), "thumbnails: expected names of files"),
        (about_with(thumbnails={}), "its parts do not belong together"),
        (array_with("mean_map", lambda a: a.astype(np.float64)), "mean_map: expected float32"),
        (array_with("mean_map", lambda a: a[:, :, 0]), "mean_map: expected float32 of 3 dim"),
        (array_with("mean_map", first(np.nan)), "mean_map: expected numbers from 0 to inf"),
        (array_with("top_values", first(-1)), "top_values: expected numbers from 0"),
        (array_with("top_patches", first(36)), "top_patches: expected numbers from -1 to 35"),
        (array_with("top_patches", first(-1)), "its parts do not belong together"),
        (array_with("top_images", first(-5)), "top_images: expected numbers from -1"),
        (array_with("fired_images", first(5)), "fired_images: expected numbers from 0 to 4"),
        (array_with("fired_patches", first(-1)), "fired_patches: expected numbers from 0 to 144"),
        (array_with("class_means", first(np.inf)), "class_means: expected numbers from 0 to inf"),
        (lambda a: a | {"num_images": np.array([4])}, "num_images: expected int64 of 0 dim"),
        (lambda a: a | {"num_images": np.array(0)}, "num_images: expected numbers from 1"),
        (lambda a: a | {"num_images": np.array([{}], dtype=object)}, "num_images"),
    ],
)
def test_damaged_index_is_named(alpha, tmp_path, damage, message):
    with np.load(alpha / "atlas.npz") as index:
        arrays = damage(dict(index))
    path = tmp_path / "atlas.npz"
    if arrays is None:
        path.write_bytes((alpha / "atlas.npz").read_bytes()[:-300])
    else:
        np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as raised:
        read_atlas(tmp_path)
    assert "atlas.npz: not an atlas, or damaged: " in str(raised.value)


def test_sizes_of_an_index_are_bounded_before_it_is_read(alpha, tmp_path):
    path = tmp_path / "atlas.npz"
    shutil.copy(alpha / "atlas.npz", path)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (96, 2400, 2400), }\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(alpha / "atlas.npz") as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member, array if "mean_map" in member.filename else old.read(member))
    with pytest.raises(InputError, match="mean_map': expected float32 of shape"):
        read_atlas(tmp_path)


def test_an_atlas_of_an_earlier_version_is_read(alpha, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(alpha, copy)
    stored = read_atlas(copy)
    with np.load(copy / "atlas.npz") as index:
        arrays = dict(index)
    about = json.loads(str(arrays["about"]))
    del about["thumbnails"], about["versions"]
    np.savez_compressed(copy / "atlas.npz", **arrays | {"about": np.array(json.dumps(about))})
    for number, name in stored.thumbnails.items():
        (copy / "thumbnails" / name).rename(copy / "thumbnails" / f"{number:06d}.jpg")
    old = read_atlas(copy)
    assert old.thumbnails == {number: f"{number:06d}.jpg" for number in stored.names}
    for number in stored.names:
        expected = read_thumbnail(alpha, stored, number)
        np.testing.assert_array_equal(read_thumbnail(copy, old, number), expected)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def is_whole(folder):
    stored = read_atlas(folder)
    for number in stored.thumbnails:
        read_thumbnail(folder, stored, number)
    page = (folder / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    return all((folder / file).is_file() for _, _, file, _, _ in data["pictures"])


def test_an_atlas_that_cannot_be_finished_leaves_the_one_before(pictures, tmp_path, monkeypatch):
    output = tmp_path / "atlas"
    assert make(pictures, output) == 0
    before = contents(output)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    steps = ((atlas_files, "write_atlas"), (task, "_page_of"), (figure_files, "save_figure"))
    for place, step in steps:
        with monkeypatch.context() as patch:
            patch.setattr(place, step, full)
            assert make(pictures, output, "--block", "0") == 2
        assert contents(output) == before
        assert [path.name for path in output.iterdir() if path.is_dir()] == ["thumbnails"]


def test_a_process_killed_while_it_swaps_leaves_a_whole_atlas(pictures, tmp_path, monkeypatch):
    first, output, left = tmp_path / "first", tmp_path / "atlas", tmp_path / "left"
    assert make(pictures, first, "--limit", "2") == 0
    replace, moved = Path.replace, []

    def recorded(path, target):
        if path.parent.name in (".new", "thumbnails") and path.suffix != ".partial":
            shutil.copytree(output, left / str(len(moved)))  # what a kill would leave here
            moved.append(path.name)
        return replace(path, target)

    shutil.copytree(first, output)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", recorded)
        assert make(pictures, output, "--block", "0") == 0
    assert moved.index("atlas.npz") == 4  # thumbnails of four pictures come first
    assert {"index.html", "sheet.png", "sheet.pdf"} == set(moved[5:])
    assert is_whole(output)
    old, new = read_atlas(first).source, read_atlas(output).source
    for point in range(len(moved)):
        folder = left / str(point)
        assert is_whole(folder)
        assert read_atlas(folder).source == (new if point > 4 else old)
    last = left / str(len(moved) - 1)
    assert (last / ".new").exists()
    assert make(pictures, last, "--block", "0") == 0
    assert not (last / ".new").exists()
    assert {path.relative_to(last): content for path, content in contents(last).items()} == {
        path.relative_to(output): content for path, content in contents(output).items()
    }


def test_a_folder_of_a_process_killed_before_the_index_is_taken(pictures, tmp_path, capsys):
    for left in ("thumbnails", ".new/thumbnails"):
        output = tmp_path / left[:4]
        (output / left).mkdir(parents=True)
        (output / left / "000001.jpg").write_bytes(b"half")
        assert make(pictures, output) == 0
        assert not (output / ".new").exists()
        assert is_whole(output)
    album = tmp_path / "album"
    (album / "thumbnails").mkdir(parents=True)
    (album / "thumbnails" / "holiday.jpg").write_bytes(b"precious")
    assert make(pictures, album) == 2
    assert "expected an empty folder or an atlas" in capsys.readouterr().err


def test_two_processes_do_not_write_one_atlas(pictures, alpha, capsys):
    before = contents(alpha)
    with hold_folder(alpha):
        assert make(pictures, alpha, "--block", "0") == 2
    assert "another process is writing" in capsys.readouterr().err
    assert contents(alpha) == before


def test_folder_without_an_index_is_named(tmp_path):
    with pytest.raises(InputError, match=r"expected the folder of an atlas, found no atlas\.npz"):
        read_atlas(tmp_path)


def test_sheet_without_classes_goes_from_rare_to_frequent(pictures, tmp_path, monkeypatch):
    drawn = []

    def draw(rows, title, **_):
        drawn.extend(rows)
        return figure(rows[:1], title)

    monkeypatch.setattr(task.visualization, "atom_sheet", draw)
    assert make(pictures / "cat", tmp_path, sheet=()) == 0
    atlas = read_atlas(tmp_path).atlas
    chosen = [int(row.name.split()[1]) for row in drawn]
    assert len(set(chosen)) == 12
    frequencies = atlas.fired_patches[chosen]
    assert (np.diff(frequencies) >= 0).all()
    enough = atlas.fired_patches[atlas.fired_images >= 3]
    assert (frequencies[0], frequencies[-1]) == (enough.min(), enough.max())


figure = task.visualization.atom_sheet


def test_sheet_with_classes_has_the_most_selective_atom_of_each_first():
    best = np.array([0, 0, 0, 1, 1, 2, 2])
    selectivity = np.array([0.2, 0.9, 0.5, 0.3, 0.4, 0.95, 0.1])
    means = np.ones((3, 7))
    means[best, np.arange(7)] = (1 + selectivity) / (1 - selectivity)
    fired_images = np.array([9, 9, 9, 9, 9, 4, 9])  # atom 5 fires in too few
    atlas = Atlas(9, fired_images, fired_images, np.ones((7, 2, 2)), *[np.ones((7, 1))] * 3, means)
    np.testing.assert_allclose(atlas.selectivity, selectivity)
    assert task._chosen_atoms(atlas) == [1, 4, 6, 2, 3, 0]
    silent = replace(atlas, fired_images=np.zeros(7, int), class_means=np.zeros((3, 7)))
    assert task._chosen_atoms(silent) == [0]
