"""Finding images: which entries are taken, and how the others are told."""

import os
import warnings

import pytest

from crate_interp.data import folders, image_files
from crate_interp.data.places import list_images
from crate_interp.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def without_heif(monkeypatch):
    known = tuple(name for name in image_files.image_formats() if name != "HEIF")
    monkeypatch.setattr(image_files, "image_formats", lambda: known)


def test_what_is_left_out_is_counted_in_one_line(tmp_path, caplog, without_heif):
    touch(tmp_path, "a.png", "b.HEIC", "c.heic", "d.eps", "e", "sub/f.png", "notes.txt", ".g.png")
    (tmp_path / "h.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert list_images([tmp_path]) == [tmp_path / "a.png"]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: 7 entries left out: ")
    parts = set(line.partition("left out: ")[2].split(", "))
    assert parts == {
        *("2 .heic (install pillow-heif)", "1 .eps (not read here)", "2 broken links"),
        *("1 file without a suffix", "1 folder (--recursive)"),
    }


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, caplog):
    touch(tmp_path, "a.png", "annotations.json", ".hidden/b.png")
    assert len(list_images([tmp_path])) == 1
    assert not caplog.messages


def test_a_folder_without_images_says_what_it_holds(tmp_path, without_heif):
    touch(tmp_path, "a.heic", "b/c.png")
    with pytest.raises(
        InputError, match=r"found none; left out: 1 \.heic \(install pillow-heif\), 1"
    ):
        list_images([tmp_path])


def test_suffixes_of_avif_and_ppm_are_images(tmp_path):
    touch(tmp_path, "a.ppm", "b.PGM", "c.webp")
    assert len(list_images([tmp_path])) == 3
    assert (".avif" in image_files.image_suffixes()) == ("AVIF" in image_files.image_formats())


def test_recursive_enters_folders_once_in_the_order_of_names(tmp_path, caplog):
    touch(tmp_path, "b/z.png", "b/c/y.png", "a.png", ".hidden/x.png")
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    found = list_images([tmp_path], recursive=True)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        *("a.png", "b/c/y.png", "b/z.png"),
    ]
    assert caplog.messages == [f"{tmp_path}: 1 entry left out: 1 folder (searched already)"]


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch, caplog):
    touch(tmp_path, "a.png", "closed/b.png")
    listed = folders.Path.iterdir

    def iterdir(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(folders.Path, "iterdir", iterdir)
    assert list_images([tmp_path], recursive=True) == [tmp_path / "a.png"]
    assert "1 entry left out: 1 folder (Permission denied)" in caplog.text
    with pytest.raises(InputError, match="closed: cannot be read: Permission denied"):
        list_images([tmp_path / "closed"])


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "y/" * 3000])
def test_names_that_no_file_can_have_are_errors_of_one_line(tmp_path, name):
    with pytest.raises(InputError) as error:
        list_images([tmp_path / name])
    assert len(str(error.value)) <= 500
    assert str(error.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_are_left_out(tmp_path, caplog):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    with warnings.catch_warnings():
        assert list_images([tmp_path]) == [tmp_path / "a.png"]
    assert "1 pipe or device" in caplog.text
