import tarfile

import numpy as np
import pytest
from PIL import Image

from crate_interp.data import classes_by_folder, open_class_folders, open_images
from crate_interp.errors import InputError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)


def test_classes_are_folders_and_come_in_turn(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png", "cat/3.png", "dog/2.png", ".hidden/1.png"):
        write(tmp_path / name)
    (tmp_path / "README.txt").write_text("classes")
    folders = open_class_folders(tmp_path)
    names = [record.file_name for record in folders.records]
    assert names == ["cat/1.png", "dog/1.png", "cat/2.png", "dog/2.png", "cat/3.png"]
    assert [record.image_id for record in folders.records] == [1, 2, 3, 4, 5]
    assert folders.classes == ("cat", "dog")
    assert [folders.labels[number] for number in range(1, 6)] == [0, 1, 0, 1, 0]
    assert folders.name == tmp_path.name
    assert folders.records[1].read().shape == (4, 5, 3)


def test_folder_of_images_and_empty_folder_have_no_classes(tmp_path):
    assert open_class_folders(tmp_path) is None
    write(tmp_path / "cat" / "1.png")
    write(tmp_path / "2.png")
    assert open_class_folders(tmp_path) is None


def test_class_without_an_image_is_named(tmp_path):
    write(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="dog: expected image files"):
        open_class_folders(tmp_path)


def test_what_classes_leave_out_is_told_in_one_line(tmp_path, caplog):
    for name in ("cat/1.png", "dog/1.png", "cat/more/2.png", "dog/more/3.png"):
        write(tmp_path / name)
    (tmp_path / "dog" / "4.eps").touch()
    assert len(open_class_folders(tmp_path)) == 2
    assert caplog.messages == [
        f"{tmp_path}: 3 entries left out: 2 folders (--recursive), 1 .eps (not read here)"
    ]
    folders = open_class_folders(tmp_path, recursive=True)
    names = [record.file_name for record in folders.records]
    assert names == ["cat/1.png", "dog/1.png", "cat/more/2.png", "dog/more/3.png"]
    assert list(folders.labels.values()) == [0, 1, 0, 1]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="gone: cannot be read: No such file"):
        open_class_folders(tmp_path / "gone")
    write(tmp_path / "dog" / "1.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"cat: expected image files .*left out: 1 broken link"):
        open_class_folders(tmp_path)


def test_classes_by_folder_are_those_of_any_place(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png"):
        write(tmp_path / "all" / name)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "all", "")
    for place in ("all", "all.tar"):
        images = classes_by_folder(open_images([tmp_path / place], recursive=True))
        assert images.classes == ("cat", "dog")
        assert [images.labels[record.image_id] for record in images.records] == [0, 1, 0, 0]
    one = classes_by_folder(open_images([tmp_path / "all" / "dog"]))
    assert (one.classes, [*one.labels.values()]) == (("dog",), [0])
