"""Labelled sets: VOC and ADE20K folders, sets of salient objects, the built-in scenes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.data import (
    VOC_CLASSES,
    VOID,
    class_masks,
    labelled_kinds,
    open_ade20k,
    open_labelled,
    open_labelled_scenes,
    open_saliency,
    open_voc,
    read_label_map,
    truth_masks,
)
from crate_interp.errors import InputError

HW = (6, 8)


def save_labels(path: Path, labels: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(path)


@pytest.fixture
def voc(tmp_path):
    """Two images; the second one holds two objects of one class, and void."""
    first, second = np.zeros(HW), np.zeros(HW)
    first[2:4, 3:6] = 12
    second[:3], second[3:], second[2:4] = 8, 8, VOID
    objects = np.where(second == VOID, VOID, np.where(np.arange(6)[:, None] < 3, 1, 2))
    for name, labels, instances in (("b", first, first > 0), ("a", second, objects)):
        save_labels(tmp_path / "SegmentationClass" / f"{name}.png", labels)
        save_labels(tmp_path / "SegmentationObject" / f"{name}.png", instances)
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        Image.new("RGB", HW[::-1]).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("b\na\n")
    return tmp_path


def test_voc_has_the_images_of_the_list_with_their_labels(voc):
    found = open_labelled(voc, "val")
    assert [record.file_name for record in found.images.records] == ["b.jpg", "a.jpg"]
    assert [record.image_id for record in found.images.records] == [1, 2]
    assert (found.classes, found.background) == (VOC_CLASSES, 0)
    labels = [found.labels_of(record, HW) for record in found.images.records]
    assert np.unique(labels[0]).tolist() == [0, 12]
    assert (labels[0] == 12).sum() == 6
    assert labels[1][:, 0].tolist() == [8, 8, VOID, VOID, 8, 8]
    masks, classes = class_masks(labels[1], 0)
    assert classes.tolist() == [8]
    assert masks[0, :, 0].tolist() == [True, True, False, False, True, True]
    objects = found.objects_of(found.images.records[1], HW)
    masks, classes = truth_masks(labels[1], objects, 0)
    assert classes.tolist() == [8, 8]
    assert masks[:, :, 0].tolist() == [[True, True] + 4 * [False], 4 * [False] + [True, True]]
    assert len(found.limit(1).images) == 1


def test_background_is_a_class_and_an_object_where_it_counts():
    labels = np.array([[0, 3, VOID], [0, 3, 3]], np.uint8)
    objects = np.array([[0, 1, 1], [0, 1, 2]], np.uint8)
    assert class_masks(labels, None)[1].tolist() == [0, 3]
    masks, classes = truth_masks(labels, objects, None)
    assert classes.tolist() == [0, 3, 3]
    assert masks.sum(axis=(1, 2)).tolist() == [2, 2, 1]  # the void pixel belongs to none
    assert truth_masks(labels, objects, 0)[1].tolist() == [3, 3]
    assert truth_masks(labels, None, 0)[1].tolist() == [3]
    with pytest.raises(InputError, match="do not agree"):
        truth_masks(labels, objects[:1], 0)


def test_nothing_but_void_and_background_has_no_mask():
    labels = np.array([[0, VOID]], np.uint8)
    masks, classes = class_masks(labels, 0)
    assert masks.shape == (0, 1, 2)
    assert classes.shape == (0,)
    masks, classes = truth_masks(labels, labels, 0)
    assert masks.shape == (0, 1, 2)
    assert classes.shape == (0,)


def test_voc_without_objects_says_so(voc):
    for file in (voc / "SegmentationObject").iterdir():
        file.unlink()
    (voc / "SegmentationObject").rmdir()
    found = open_voc(voc)
    with pytest.raises(InputError, match="tells no objects apart"):
        found.objects_of(found.images.records[0], HW)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (None, r"val.txt: cannot be read: No such file"),
        ("", "expected names of images, one a line, found none"),
        ("a\nb\na\n", "found one twice"),
        ("../a\n", "found a path"),
        ("a\nc\nd\n", r"val.txt: names what is not there: .*c.jpg: no such file, and 1 more"),
        (b"\xff\xfe", "not a text file"),
        ("..\n", "found a path"),
        ("x" * 300, "no such file"),
        (b"a\0b", r"a\\x00b.jpg: no such file"),
        ("/" * 5000 + "a", "found a path"),
    ],
)
def test_voc_refuses_lists(voc, listing, message):
    path = voc / "ImageSets" / "Segmentation" / "val.txt"
    path.unlink()
    if listing is not None:
        path.write_bytes(listing if isinstance(listing, bytes) else listing.encode())
    with pytest.raises(InputError, match=message):
        open_voc(voc)


@pytest.mark.parametrize("split", ["../../x", "a\0b", "y" * 300, "..", ""])
def test_splits_that_are_no_names_are_refused(voc, ade20k, split):
    for opened in (open_voc, open_ade20k):
        with pytest.raises(InputError, match="split: expected a name such as val"):
            opened(voc, split)


def test_a_list_may_begin_with_a_byte_order_mark_but_is_no_large_file(voc, monkeypatch):
    path = voc / "ImageSets" / "Segmentation" / "val.txt"
    path.write_text("a\nb\n", encoding="utf-8-sig")
    assert len(open_voc(voc).images) == 2
    monkeypatch.setattr("crate_interp.data.label_files._LARGEST_LIST", 5)
    with pytest.raises(InputError, match=r"val.txt: expected a list of at most 5 bytes"):
        open_voc(voc)


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
def test_voc_refuses_a_missing_mask(voc, folder):
    (voc / folder / "a.png").unlink()
    with pytest.raises(InputError, match=rf"{folder}/a.png: no such file"):
        open_voc(voc)


def test_labels_of_another_size_are_refused(voc):
    found = open_voc(voc)
    with pytest.raises(InputError, match=r"b.png: .*\(6, 9\) pixels .* its mask has \(6, 8\)"):
        found.labels_of(found.images.records[0], (6, 9))


def test_label_maps_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    with pytest.raises(InputError, match=r"mask.png: cannot be read: No such file"):
        read_label_map(path, 21)
    path.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"mask.png: cannot be read"):
        read_label_map(path, 21)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(InputError, match="palette or grey image of 8 bits, found mode RGB"):
        read_label_map(path, 21)
    save_labels(path, np.array([[20, 21], [22, VOID]]))
    with pytest.raises(InputError, match=r"labels 0 to 20, and 255 for void, found \[21, 22\]"):
        read_label_map(path, 21)
    assert read_label_map(path, 23).tolist() == [[20, 21], [22, VOID]]


@pytest.fixture
def ade20k(tmp_path):
    save_labels(tmp_path / "annotations" / "validation" / "x.png", np.array([[0, 1, 150]]), "L")
    (tmp_path / "images" / "validation").mkdir(parents=True)
    Image.new("RGB", (3, 1)).save(tmp_path / "images" / "validation" / "x.jpg")
    return tmp_path


def test_ade20k_numbers_its_classes_from_zero(ade20k):
    found = open_labelled(ade20k, "val")
    assert found.labels_of(found.images.records[0], (1, 3)).tolist() == [[VOID, 0, 149]]
    assert (len(found.classes), found.classes[1], found.background) == (150, "class 2", None)
    rows = [f"{n}\t0.1\t10\t2\t1\tname {n}, other" for n in range(1, 151)]
    (ade20k / "objectInfo150.txt").write_text(
        "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows])
    )
    assert open_ade20k(ade20k).classes[149] == "name 150"
    (ade20k / "objectInfo150.txt").write_text("Idx\n1\n")
    with pytest.raises(InputError, match="150 classes, found 1"):
        open_ade20k(ade20k)
    (ade20k / "objectInfo150.txt").write_bytes(b"Idx\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"objectInfo150.txt: cannot be read: not a text file"):
        open_ade20k(ade20k)


def test_ade20k_refuses_labels_out_of_range_and_missing_masks(ade20k):
    mask = ade20k / "annotations" / "validation" / "x.png"
    save_labels(mask, np.array([[151, 0, 0]]), "L")
    found = open_ade20k(ade20k)
    with pytest.raises(InputError, match=r"labels 0 to 150, .* found \[151\]"):
        found.labels_of(found.images.records[0], (1, 3))
    mask.unlink()
    with pytest.raises(InputError, match=r"x.png: no such file"):
        open_ade20k(ade20k)


def test_folders_of_no_known_layout_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected ImageSets/"):
        open_labelled(tmp_path, "val")
    with pytest.raises(InputError, match="no such folder"):
        open_labelled(tmp_path / "nothing", "val")


def test_every_kind_of_labelled_set_is_in_the_table(tmp_path, voc):
    assert {"voc", "ade20k", "salient_objects", "demo"} <= labelled_kinds().keys()
    (voc / "annotations").mkdir()  # of another kind, too: the first one opens it
    assert open_labelled(voc, "val").classes == VOC_CLASSES
    with pytest.raises(InputError, match=r"val.txt: cannot be read"):
        open_labelled(tmp_path / "nothing", "val", otherwise="voc")


def test_a_folder_of_images_and_masks_is_a_labelled_set(tmp_path):
    save_labels(tmp_path / "masks" / "x.png", np.array([[0, 0, 255]]), "L")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 1)).save(tmp_path / "images" / "x.jpg")
    found = open_labelled(tmp_path, "val")
    assert found.images.name == tmp_path.name
    assert found.labels_of(found.images.records[0], (1, 3)).tolist() == [[0, 0, 1]]


def test_salient_objects_are_what_is_white(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "x.jpg")
    with pytest.raises(InputError, match=r"x.png: no such file"):
        open_saliency(tmp_path / "images", tmp_path / "masks")
    mask = tmp_path / "masks" / "x.png"
    save_labels(mask, np.array([[0, 127, 128], [255, 0, 0]]), "L")
    found = open_saliency(tmp_path / "images", tmp_path / "masks")
    record = found.images.records[0]
    assert found.labels_of(record, (2, 3)).tolist() == [[0, 0, 1], [1, 0, 0]]
    save_labels(mask, np.array([[0, 1, 1]]), "L")
    with pytest.raises(InputError, match="found no value above 1"):
        found.labels_of(record, (1, 3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: expected image files"):
        open_saliency(tmp_path / "empty", tmp_path / "masks")


def test_scenes_have_the_labels_that_they_are_drawn_with(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path))
    found, other = open_labelled_scenes("val", 3), open_labelled_scenes("train", 3)
    assert found.classes[:2] == ("background", "striped ball")
    for record in found.images.records:
        labels, objects = (read(record, record.hw) for read in (found.labels_of, found.objects_of))
        assert ((labels > 0) == (objects > 0)).all()
        masks, classes = truth_masks(labels, objects, 0)
        assert set(classes) == set(class_masks(labels, 0)[1])
        assert len(masks) == objects.max()
    first = [each.images.records[0].read() for each in (found, other)]
    assert first[0].shape != first[1].shape or (first[0] != first[1]).any()
    with pytest.raises(InputError, match="of the scenes, found test"):
        open_labelled_scenes("test")


def test_every_label_map_of_real_voc_is_read(shared_data):
    found = open_voc(shared_data / "voc" / "VOC2012")
    for record in found.images.records[::10]:
        labels = found.labels_of(record, record.read().shape[:2])
        assert class_masks(labels, 0)[1].size
        assert (labels == VOID).any()


def test_masks_that_would_take_all_memory_are_refused():
    labels = np.arange(200, dtype=np.uint8).repeat(2**14).reshape(1280, 2560)
    with pytest.raises(InputError, match="found 199 labels in 1280 x 2560 pixels"):
        class_masks(labels, 0)


def test_salient_masks_lie_in_folders_of_the_same_names(tmp_path):
    for name, value in (("x/a", 255), ("y/a", 0)):
        save_labels(tmp_path / "masks" / f"{name}.png", np.full((2, 3), value), "L")
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "images" / f"{name}.jpg")
    found = open_saliency(tmp_path / "images", tmp_path / "masks", recursive=True)
    assert [record.file_name for record in found.images.records] == ["x/a.jpg", "y/a.jpg"]
    values = [found.labels_of(record, (2, 3)).max() for record in found.images.records]
    assert values == [1, 0]


PLUGIN = """
import numpy as np

from crate_interp.data import LabelledKind, LabelledSet, open_images, read_label_map


def open_stripes(root, split):
    def read(record, image_hw):
        return read_label_map(root / "labels" / f"{record.path.stem}.png", 2, image_hw)

    return LabelledSet(open_images([root / split]), ("floor", "stripe"), 0, read)


DATASET = LabelledKind("val/ and labels/", lambda data: (data / "labels").is_dir(), open_stripes)
WRONG = open_stripes
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of one file, with an entry point."""

    def package(value):
        site = tmp_path / "site"
        (site / "stripes-1.dist-info").mkdir(parents=True)
        (site / "stripes.py").write_text(PLUGIN)
        (site / "stripes-1.dist-info" / "METADATA").write_text("Name: stripes\nVersion: 1\n")
        points = f"[crate_interp.datasets]\nstripes = {value}\n"
        (site / "stripes-1.dist-info" / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(site)

    yield package
    sys.modules.pop("stripes", None)


def test_a_package_of_one_file_adds_a_kind_of_labelled_set(tmp_path, install):
    data = tmp_path / "data"
    save_labels(data / "labels" / "x.png", np.array([[0, 1, VOID]]))
    (data / "val").mkdir()
    (data / "annotations").mkdir()  # which ADE20K has, too
    Image.new("RGB", (3, 1)).save(data / "val" / "x.jpg")
    install("stripes:DATASET")
    found = open_labelled(data, "val")
    assert found.classes == ("floor", "stripe")
    assert found.labels_of(found.images.records[0], (1, 3)).tolist() == [[0, 1, VOID]]
    with pytest.raises(InputError, match=r"expected val/ and labels/, or ImageSets/"):
        open_labelled(tmp_path, "val")


@pytest.mark.parametrize("value", ["stripes:WRONG", "stripes:nothing", "no_such_module:DATASET"])
def test_a_broken_kind_of_another_package_is_named(tmp_path, install, value):
    install(value)
    with pytest.raises(InputError, match=r"crate_interp.datasets stripes of stripes: "):
        open_labelled(tmp_path, "val")
