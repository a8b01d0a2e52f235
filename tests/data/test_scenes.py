import contextlib
import io
import json
import math

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from crate_interp.data import scenes
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import MIN_VISIBLE_SHARE, draw_scene, training_batch, write_scenes
from crate_interp.errors import InputError


def scene(seed, **arguments):
    return draw_scene(np.random.default_rng(seed), **arguments)


def files_below(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def load_coco(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(folder / "annotations" / "instances_demo.json")


@pytest.fixture(scope="module")
def scene_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, count=24)
    return folder


@pytest.mark.parametrize("size_hw", [(240, 320), (65, 48), (16, 16)])
def test_draw_scene_types_and_sizes(size_hw):
    drawn = scene(0, size_hw=size_hw, object_size=(0.5, 0.7))
    assert drawn.image.shape == (*size_hw, 3)
    assert drawn.image.dtype == np.uint8
    assert drawn.masks.shape == (len(drawn.labels), *size_hw)
    assert drawn.masks.dtype == np.bool_
    assert drawn.labels.dtype == np.int64
    assert np.isin(drawn.labels, np.arange(len(CATEGORIES))).all()


def test_draw_scene_same_seed_same_scene_other_seed_other():
    first, again, other = scene(3), scene(3), scene(4)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("seed", range(12))
def test_draw_scene_masks_are_disjoint_and_visible(seed):
    drawn = scene(seed, size_hw=(96, 128), object_count=(3, 4))
    assert drawn.masks.sum(axis=0).max() == 1
    assert drawn.masks.any(axis=(1, 2)).all()
    assert 1 <= len(drawn.masks) <= 4


@pytest.mark.parametrize("seed", range(6))
def test_draw_scene_mask_is_where_the_object_changed_the_picture(seed, monkeypatch):
    arguments = {"size_hw": (120, 160), "object_count": (1, 1)}
    drawn = scene(seed, **arguments)
    monkeypatch.setattr(scenes, "_paint", lambda *_: None)
    without = scene(seed, **arguments)
    mask = drawn.masks[0]
    np.testing.assert_array_equal(mask, without.masks[0])
    change = drawn.image.astype(int) - without.image
    assert (np.abs(change).max(axis=2)[mask] > 3).mean() > 0.9
    beside = ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert change[beside].max() == 0  # but for the antialiased edge, the shadow only darkens
    far = ~cv2.dilate(mask.astype(np.uint8), np.ones((51, 51), np.uint8)).astype(bool)
    assert not change[far].any()


def test_draw_scene_number_of_objects_covers_the_range():
    counts = [len(scene(seed, size_hw=(64, 64)).masks) for seed in range(60)]
    assert set(counts) == {1, 2, 3, 4}


def test_draw_scene_occlusion_leaves_most_of_an_object(monkeypatch):
    full_areas = []
    paint = scenes._paint

    def recording_paint(rng, canvas, placed, *arguments):
        full_areas.append((placed.distance > 0).sum())
        paint(rng, canvas, placed, *arguments)

    monkeypatch.setattr(scenes, "_paint", recording_paint)
    shares = []
    for seed in range(20):
        full_areas.clear()
        drawn = scene(seed, size_hw=(64, 64), object_count=(4, 4), object_size=(0.4, 0.6))
        shares.extend(drawn.masks.sum(axis=(1, 2)) / full_areas)
    assert MIN_VISIBLE_SHARE <= min(shares) < 0.8
    assert max(shares) == 1


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
@pytest.mark.parametrize("variation", [0.0, 0.5, 0.99])
def test_category_lies_in_its_unit_disc_and_its_texture_in_0_to_1(category, variation):
    v, u = np.meshgrid(np.linspace(-1.6, 1.6, 161), np.linspace(-1.6, 1.6, 161), indexing="ij")
    inside = category.distance(u, v, variation) > 0
    assert np.hypot(u, v)[inside].max() < 1.15
    assert inside.sum() * 0.02**2 > 0.5
    texture = category.texture(u, v, math.pi * category.cycles)[inside]
    assert texture.min() == 0
    assert texture.max() == 1
    assert 0.2 < texture.mean() < 0.8


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_category_distance_is_about_one_a_unit_at_the_outline(category):
    """So that edges are about one pixel soft at every size."""
    axis = np.linspace(-1.2, 1.2, 481)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    distance = category.distance(u, v, 0.5)
    slope = np.hypot(*np.gradient(distance, axis[1] - axis[0]))
    at_outline = np.abs(distance) < 0.01
    assert 0.5 < np.median(slope[at_outline]) < 1.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_hw": (15, 64)}, "at least 16"),
        ({"object_count": (0, 2)}, "1 <= fewest"),
        ({"object_count": (3, 2)}, "1 <= fewest"),
        ({"object_size": (0.6, 0.4)}, "ascending"),
        ({"object_size": (0.5, 1.2)}, "at most 1"),
        ({"object_size": (0.01, 0.5)}, "at least 8 pixels"),
        ({"object_size": (math.nan, 0.5)}, "ascending"),
    ],
)
def test_draw_scene_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        scene(0, **arguments)


def test_training_batch_labels_the_largest_visible_object():
    images, labels = training_batch(np.random.default_rng(7), 16, 48)
    assert images.shape == (16, 48, 48, 3)
    assert images.dtype == np.uint8
    rng = np.random.default_rng(7)
    for image, label in zip(images, labels, strict=True):
        drawn = draw_scene(rng, (48, 48), object_size=(0.35, 0.75))
        np.testing.assert_array_equal(image, drawn.image)
        assert label == drawn.labels[np.argmax([mask.sum() for mask in drawn.masks])]


def test_training_batch_categories_are_balanced():
    _, labels = training_batch(np.random.default_rng(0), 800, 24, object_count=(1, 1))
    counts = np.bincount(labels, minlength=len(CATEGORIES))
    assert len(counts) == len(CATEGORIES) == 8
    # 100 each, with a standard deviation of 9.4
    assert counts.min() > 100 - 4 * 9.4
    assert counts.max() < 100 + 4 * 9.4


@pytest.mark.parametrize("batch_size", [0, -1])
def test_training_batch_refuses_no_pictures(batch_size):
    with pytest.raises(InputError, match="batch_size"):
        training_batch(np.random.default_rng(0), batch_size, 48)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")
def test_write_scenes_is_valid_coco_with_exact_masks(scene_set):
    coco = load_coco(scene_set)
    assert len(coco.imgs) == 24
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [
        category.name for category in CATEGORIES
    ]
    for image_id, entry in coco.imgs.items():
        image = np.asarray(Image.open(scene_set / "demo" / entry["file_name"]))
        assert image.shape == (entry["height"], entry["width"], 3)
        rng = np.random.default_rng([0, image_id])
        rng.random()  # chose the size
        drawn = draw_scene(rng, image.shape[:2])
        np.testing.assert_array_equal(image, drawn.image)
        annotations = coco.loadAnns(coco.getAnnIds([image_id]))
        assert len(annotations) == len(drawn.masks)
        for annotation, mask, label in zip(annotations, drawn.masks, drawn.labels, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            box = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
            assert annotation["category_id"] == label + 1
            assert annotation["iscrowd"] == 0


def test_write_scenes_is_byte_identical(scene_set, tmp_path):
    write_scenes(tmp_path / "again", count=24)
    assert files_below(tmp_path / "again") == files_below(scene_set)


def test_write_scenes_shorter_set_is_the_beginning_of_a_longer_one(scene_set, tmp_path):
    write_scenes(tmp_path / "short", count=3)
    longer = files_below(scene_set / "demo")
    for name, content in files_below(tmp_path / "short" / "demo").items():
        assert content == longer[name]


def test_write_scenes_leaves_an_equal_set_and_replaces_another(tmp_path):
    folder = tmp_path / "scenes"
    write_scenes(folder, count=2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_scenes(folder, count=2)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_scenes(folder, count=1, seed=5)
    assert [path.name for path in (folder / "demo").iterdir()] == ["000001.png"]
    assert json.loads((folder / "annotations/instances_demo.json").read_text())["info"]["seed"] == 5


def test_write_scenes_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", count=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_write_scenes_refuses_numbers(tmp_path, count, seed):
    with pytest.raises(InputError, match="at least"):
        write_scenes(tmp_path / "scenes", count=count, seed=seed)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.txt", "keep"),
        ("annotations/instances_demo.json", '{"info": {"description": "COCO 2017"}}'),
        ("annotations/instances_demo.json", "[1, 2]"),
        ("annotations/instances_demo.json", "{"),
    ],
)
def test_write_scenes_refuses_a_folder_of_something_else(tmp_path, name, content):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    with pytest.raises(InputError, match="not a set of scenes"):
        write_scenes(tmp_path)
    assert file.read_text() == content
