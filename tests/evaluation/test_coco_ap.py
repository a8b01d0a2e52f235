"""COCO AP against pycocotools called by hand, on crowds, ties, id 0 and other corners."""

import contextlib
import copy
import io
import json
from dataclasses import astuple, fields

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crate_interp.data import decode_mask, encode_masks, read_coco, results_of
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    CocoScores,
    average_precision,
    best_overlaps,
    bootstrap_average_precision,
    bootstrap_score,
    coco_average_precision,
    format_table,
    image_detections,
    image_matches,
    mask_iou,
    object_masks,
    object_overlaps,
    precision_by_recall,
    prepare_ground_truth,
    read_results,
)
from crate_interp.structures import Instances, boxes_of_masks

HEIGHT, WIDTH = 160, 200
IOU_TYPES = ("bbox", "segm")


def _rectangle(rng: np.random.Generator) -> tuple[int, int, int, int]:
    side = rng.choice([16, 60, 150])
    width, height = rng.integers(2 * side // 3, side, 2)
    return rng.integers(0, WIDTH - width), rng.integers(0, HEIGHT - height), width, height


def _mask(x: int, y: int, width: int, height: int) -> np.ndarray:
    """A rectangle without its upper left quarter: its area is not that of its box."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    mask[y : y + height // 2, x : x + width // 2] = False
    return mask


def _uncompressed(mask: np.ndarray) -> dict:
    column_major = mask.T.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(column_major, prepend=0)).tolist()
    edges = [0, *changes, column_major.size]
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(edges).tolist()}


def _ground_truth(rng: np.random.Generator, images: int = 8) -> dict:
    """Polygons, compressed masks and uncompressed crowds; an image without annotations."""
    annotations = []
    for image_id in range(2, images + 1):
        for _ in range(rng.integers(1, 6)):
            x, y, width, height = (int(value) for value in _rectangle(rng))
            mask = _mask(x, y, width, height)
            crowd = int(rng.random() < 0.2)
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            if crowd:
                segmentation: object = _uncompressed(mask)
            elif rng.random() < 0.5:
                segmentation = [corners]
                mask = np.zeros_like(mask)
                mask[y : y + height, x : x + width] = True
            else:
                segmentation = encode_masks(mask[None])[0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([3, 7, 20])),
                    "segmentation": segmentation,
                    "bbox": [x, y, width, height],
                    "area": float(mask.sum()),
                    "iscrowd": crowd,
                }
            )
    return {
        "info": {},
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
            for number in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in (3, 7, 20)],
    }


def _results(rng: np.random.Generator, truth: dict, tied: bool) -> list[dict]:
    """Shifted ground truth and noise, several an object; none for the last image."""
    results = []
    last = truth["images"][-1]["id"]
    for annotation in truth["annotations"]:
        for shift in (0, 1, int(rng.integers(0, 20))):
            x, y, width, height = annotation["bbox"]
            x, y = min(x + shift, WIDTH - width), min(y + shift // 2, HEIGHT - height)
            results.append((annotation["image_id"], x, y, width, height))
    results += [(image["id"], *_rectangle(rng)) for image in truth["images"] for _ in range(4)]
    rng.shuffle(results)
    entries = []
    for image_id, *rectangle in results:
        if image_id == last:
            continue
        mask = _mask(*(int(value) for value in rectangle))[None]
        instances = Instances(mask, scores=np.array([1.0 if tied else rng.random()]))
        (entry,) = results_of(instances, int(image_id))
        entries.append({**entry, "category_id": int(rng.choice([3, 7, 20]))})
    return entries


def _by_hand(truth: dict, results: list[dict], iou_type: str, **params) -> tuple[float, ...]:
    """What pycocotools itself answers."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = copy.deepcopy(truth)
        expected.createIndex()
        evaluation = COCOeval(expected, expected.loadRes(copy.deepcopy(results)), iou_type)
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(float(value) for value in evaluation.stats)


def _one_category(entries: list[dict]) -> list[dict]:
    return [{**entry, "category_id": 1} for entry in entries]


def _as_one_category(truth: dict) -> dict:
    annotations = _one_category(truth["annotations"])
    return {**truth, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


@pytest.fixture(params=[False, True], ids=["scored", "tied"])
def scene(request) -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(3)
    truth = _ground_truth(rng)
    assert {annotation["iscrowd"] for annotation in truth["annotations"]} == {0, 1}
    return truth, _results(rng, truth, tied=request.param)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_class_agnostic_equals_relabelled_files(scene, iou_type):
    truth, results = scene
    found = coco_average_precision(truth, results, iou_type=iou_type)
    by_hand = _by_hand(_as_one_category(truth), _one_category(results), iou_type)
    assert astuple(found) == by_hand
    assert 0 < found.AP < found.AP50 < 1
    assert len(set(by_hand)) == 12
    assert min(by_hand) > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_random_crowded_images_equal_pycocotools(iou_type, seed):
    rng = np.random.default_rng(seed)
    truth = _ground_truth(rng, images=3)
    results = [  # many ties, and more than COCOeval looks at
        {**entry, "score": round(rng.random(), 1)}
        for entry in _one_category(_results(rng, truth, tied=False)) * 15
    ]
    assert sum(entry["image_id"] == 2 for entry in results) > 100
    found = coco_average_precision(truth, results, iou_type=iou_type)
    assert astuple(found) == _by_hand(_as_one_category(truth), results, iou_type)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_class_agnostic_equals_use_cats_zero_where_that_has_no_traps(iou_type):
    rng = np.random.default_rng(4)
    truth = _ground_truth(rng)
    results = _results(rng, truth, tied=False)
    found = coco_average_precision(truth, results, iou_type=iou_type)
    assert astuple(found) == _by_hand(truth, results, iou_type, useCats=0)


def test_class_agnostic_counts_results_of_unlisted_categories(scene):
    truth, results = scene
    unlisted = [{**result, "category_id": 99} for result in results]
    found = coco_average_precision(truth, unlisted, iou_type="bbox")
    assert found == coco_average_precision(truth, results, iou_type="bbox")
    assert _by_hand(truth, unlisted, "bbox", useCats=0)[0] == 0.0  # the trap


def test_class_agnostic_needs_no_categories(scene):
    truth, results = scene
    expected = coco_average_precision(truth, results, iou_type="bbox")
    del truth["categories"]
    assert coco_average_precision(truth, results, iou_type="bbox") == expected
    with pytest.raises(InputError, match="categories: expected a list"):
        coco_average_precision(truth, results, iou_type="bbox", class_agnostic=False)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_category_aware_equals_pycocotools(scene, iou_type):
    truth, results = scene
    found = coco_average_precision(truth, results, iou_type=iou_type, class_agnostic=False)
    assert astuple(found) == _by_hand(truth, results, iou_type)
    agnostic = coco_average_precision(truth, results, iou_type=iou_type)
    assert found.AP != agnostic.AP


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_image_ids_restrict_the_score(scene, iou_type):
    truth, results = scene
    found = coco_average_precision(truth, results, iou_type=iou_type, image_ids={5, 3})
    one = (_as_one_category(truth), _one_category(results))
    assert astuple(found) == _by_hand(*one, iou_type, imgIds=[3, 5])
    assert found != coco_average_precision(truth, results, iou_type=iou_type)
    for wrong in ([3, 77], []):
        with pytest.raises(InputError, match="image_ids: expected images"):
            coco_average_precision(truth, results, iou_type=iou_type, image_ids=wrong)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_annotation_id_zero_is_lost_as_in_pycocotools(iou_type):
    rng = np.random.default_rng(5)
    truth = _ground_truth(rng)
    results = _one_category(_results(rng, truth, tied=False))
    with_ids_from_one = coco_average_precision(truth, results, iou_type=iou_type)
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    found = coco_average_precision(truth, results, iou_type=iou_type)
    assert astuple(found) == _by_hand(_as_one_category(truth), results, iou_type)
    assert found.AR100 < with_ids_from_one.AR100


@pytest.mark.parametrize("keys", [("bbox",), ("segmentation",), ("bbox", "segmentation")])
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_boxes_and_masks_alone_are_scored_as_pycocotools_does(scene, iou_type, keys):
    truth, results = scene
    kept = [
        {key: result[key] for key in (*keys, "image_id", "category_id", "score")}
        for result in _one_category(results)
    ]
    if iou_type == "segm" and "segmentation" not in keys:
        with pytest.raises(
            InputError, match=r"\[0\]\.segmentation: expected a value, found no such key"
        ):
            coco_average_precision(truth, kept, iou_type=iou_type)
        return
    found = coco_average_precision(truth, kept, iou_type=iou_type)
    if iou_type == "bbox" and keys == ("segmentation",):
        assert found.AP == coco_average_precision(truth, results, iou_type="bbox").AP
    assert astuple(found) == _by_hand(_as_one_category(truth), kept, iou_type)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_inputs_stay_as_they_are(scene, iou_type):
    truth, results = scene
    before = copy.deepcopy((truth, results))
    coco_average_precision(truth, results, iou_type=iou_type)
    assert (truth, results) == before


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_files_and_instances_score_like_entries(tmp_path, iou_type, capsys):
    rng = np.random.default_rng(6)
    truth = _ground_truth(rng)
    results = sorted(_results(rng, truth, tied=False), key=lambda entry: entry["image_id"])
    for name, content in (("truth", truth), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    expected = coco_average_precision(truth, results, iou_type=iou_type)
    files = (tmp_path / "truth.json", tmp_path / "results.json")
    assert coco_average_precision(*files, iou_type=iou_type) == expected
    assert coco_average_precision(*files, iou_type=iou_type, class_agnostic=False).AP >= 0

    by_image = {
        image["id"]: [entry for entry in results if entry["image_id"] == image["id"]]
        for image in truth["images"]
    }
    instances = {}
    for image_id, entries in by_image.items():
        masks = [_decoded(entry) for entry in entries] or np.zeros((0, HEIGHT, WIDTH), bool)
        instances[image_id] = Instances(
            np.array(masks), scores=np.array([entry["score"] for entry in entries])
        )
    assert coco_average_precision(truth, instances, iou_type=iou_type) == expected
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_results_file_as_read_scores_like_the_file(scene, tmp_path, iou_type):
    truth, results = scene
    path = tmp_path / "results.json"
    for content in (results, []):
        path.write_text(json.dumps(content))
        read = read_results(path)
        assert (read.path, read.entries) == (path, content)
        expected = coco_average_precision(truth, path, iou_type=iou_type)
        assert coco_average_precision(truth, read, iou_type=iou_type) == expected
        assert read.entries == content  # left as it is
    path.write_text(json.dumps([{**results[0], "image_id": 99}]))
    with pytest.raises(InputError, match=r"results\.json: \[0\]: image_id 99"):
        coco_average_precision(truth, read_results(path), iou_type=iou_type)


def _decoded(entry: dict) -> np.ndarray:
    x, y, width, height = (int(value) for value in entry["bbox"])
    mask = _mask(x, y, width, height)
    assert encode_masks(mask[None])[0] == entry["segmentation"]
    assert boxes_of_masks(mask[None])[0].tolist() == [x, y, x + width, y + height]
    return mask


def test_results_may_hold_numpy_numbers(scene):
    truth, results = scene
    expected = coco_average_precision(truth, results, iou_type="bbox")
    for result in results:
        result["image_id"] = np.int64(result["image_id"])
        result["score"] = np.float64(result["score"])
        result["bbox"] = [np.float32(value) for value in result["bbox"]]
    assert coco_average_precision(truth, results, iou_type="bbox") == expected


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_results_may_be_uncompressed(scene, iou_type):
    truth, results = scene
    without_boxes = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    expected = coco_average_precision(truth, without_boxes, iou_type=iou_type)
    uncompressed = [
        {**without_box, "segmentation": _uncompressed(_decoded(result))}
        for result, without_box in zip(results, without_boxes, strict=True)
    ]
    assert coco_average_precision(truth, uncompressed, iou_type=iou_type) == expected


@pytest.mark.parametrize("keys", [("bbox", "segmentation"), ("segmentation",)])
def test_results_may_be_polygons(scene, keys):
    truth, _ = scene
    polygons = [a for a in truth["annotations"] if isinstance(a["segmentation"], list)]
    assert polygons
    results = [
        {key: a[key] for key in ("image_id", "category_id", *keys)} | {"score": 1 - 0.01 * number}
        for number, a in enumerate(polygons)
    ]
    heights = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    encoded = [
        result
        | {
            "segmentation": coco_mask.merge(
                coco_mask.frPyObjects(result["segmentation"], *heights[result["image_id"]])
            )
        }
        for result in results
    ]
    expected = coco_average_precision(truth, encoded, iou_type="segm")
    assert coco_average_precision(truth, results, iou_type="segm") == expected


def test_results_of_something_else_are_refused(scene):
    truth, _ = scene
    with pytest.raises(InputError, match="expected Instances of image 'info', found dict"):
        coco_average_precision(truth, truth, iou_type="bbox")
    grid = Instances(np.ones((1, 4, 4), bool), frame="grid")
    with pytest.raises(InputError, match="found 'grid'"):
        coco_average_precision(truth, {3: grid}, iou_type="bbox")
    small = Instances(np.ones((1, 4, 4), bool))
    with pytest.raises(InputError, match=r"\[0\]: segmentation: expected size \[160, 200\]"):
        coco_average_precision(truth, {3: small}, iou_type="segm")


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("nothing", [[], {}, {3: Instances(np.zeros((0, HEIGHT, WIDTH), bool))}])
def test_no_results_score_zero(scene, iou_type, nothing):
    truth, _ = scene
    found = coco_average_precision(truth, nothing, iou_type=iou_type)
    assert set(astuple(found)) == {0.0}


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_no_annotations_leave_scores_undefined(scene, iou_type):
    truth, results = scene
    empty = {**truth, "annotations": []}
    for found in (results, []):
        scores = coco_average_precision(empty, found, iou_type=iou_type)
        assert set(astuple(scores)) == {-1.0}
    nothing = {"images": [], "annotations": []}
    scores = coco_average_precision(nothing, [], iou_type=iou_type)
    assert set(astuple(scores)) == {-1.0}


def test_missing_iscrowd_means_no_crowd(scene):
    truth, results = scene
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    expected = coco_average_precision(truth, results, iou_type="bbox")
    for annotation in truth["annotations"]:
        del annotation["iscrowd"]
    assert coco_average_precision(truth, results, iou_type="bbox") == expected


def _small_rle(height: int, width: int) -> dict:
    return encode_masks(np.ones((1, height, width), bool))[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": None}, r"\.image_id: expected a value, found no such key"),
        ({"image_id": 77}, ": image_id 77 is not in the ground truth"),
        ({"category_id": "cat"}, r"\.category_id: expected int, found str 'cat'"),
        ({"score": None}, r"\.score: expected a value, found no such key"),
        ({"score": True}, r"\.score: expected float, found bool True"),
        ({"bbox": [1, 2, 3]}, ": bbox: expected"),
        ({"bbox": [1, 2, 3, -4]}, ": bbox: expected"),
        ({"bbox": [1, 2, 3, True]}, r"\.bbox\[3\]: expected float, found bool True"),
        ({"bbox": [1, 2, 3, "4"]}, r"\.bbox\[3\]: expected float, found str '4'"),
        ({"bbox": []}, ": bbox: expected"),
        ({"segmentation": "0"}, r"\.segmentation: expected .*array.*, found str '0'"),
        ({"segmentation": [[1, 2, 3, 4]]}, ": segmentation: expected polygons of three points"),
        (
            {"segmentation": [[1, 2, 3, 4, 5, None]]},
            r"\.segmentation\[0\]\[5\]: expected float, found null",
        ),
        (
            {"segmentation": _small_rle(WIDTH, HEIGHT)},
            r": segmentation: expected size \[160, 200\]",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0"}},
            ": segmentation: counts: expected runs of 160 x 200",
        ),
    ],
)
def test_malformed_results_name_file_entry_and_key(scene, tmp_path, change, message):
    truth, results = scene
    results[2] = {**results[2], **change}
    if None in change.values():
        del results[2][next(iter(change))]
    with pytest.raises(InputError, match=rf"results: \[2\]{message}"):
        coco_average_precision(truth, results, iou_type="segm")
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(results))
    with pytest.raises(InputError, match=rf"wrong\.json: \[2\]{message}"):
        coco_average_precision(truth, path, iou_type="segm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, ": score: expected a finite number, found nan"),
        ({"score": 10**400}, r"\.score: expected a number of at most 64 bits"),
        ({"bbox": [1, 2, 3, float("inf")]}, ": bbox: expected"),
        ({"bbox": [1, 2, 3, float("nan")]}, ": bbox: expected"),
        ({"bbox": [1, 2, 3, 10**400]}, r"\.bbox\[3\]: expected a number of at most 64 bits"),
        ({"bbox": [1e308, 2, 3, 4]}, ": bbox: expected"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, ": segmentation: expected polygons"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, ": segmentation: expected polygons with x"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": "0"}}, ": segmentation: size"),
        ({"segmentation": {"size": [2, 2], "counts": "\ud800"}}, ": segmentation: counts"),
        ({"segmentation": {"size": [2, 2], "counts": [10**400]}}, ": segmentation: counts"),
        ({"image_id": 10**400}, r"\.image_id: "),
        ({"image_id": "x" * 9999}, r"\.image_id: expected int, found str 'x"),
    ],
)
def test_hostile_results_are_refused_before_pycocotools_sees_them(scene, change, message):
    truth, results = scene
    results[2] = {**results[2], **change}
    with pytest.raises(InputError, match=rf"results: \[2\]{message}") as caught:
        coco_average_precision(truth, results, iou_type="segm")
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize(
    ("iou_type", "change", "message"),
    [
        ("segm", {"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "segmentation: expected polygons"),
        ("segm", {"segmentation": {"size": [10**6, 10**6], "counts": "0"}}, "segmentation: size"),
        ("bbox", {"bbox": [0, 0, 1e308, 1e308]}, "bbox: expected"),
        ("bbox", {"bbox": [0, 0, -5, 5]}, "bbox: expected"),
        ("bbox", {"area": 1e999}, "not a JSON file|area: "),
        ("bbox", {"iscrowd": "0"}, r"iscrowd: expected .*, found str '0'"),
        ("bbox", {"iscrowd": 0.5}, r"iscrowd: expected 0 or 1, found 0\.5"),
    ],
)
def test_ground_truth_that_was_read_is_named_in_messages(
    scene, tmp_path, iou_type, change, message
):
    truth, results = scene
    truth["annotations"][4].update(change)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    with pytest.raises(InputError, match=rf"truth\.json: .*({message})"):
        coco_average_precision(path, results, iou_type=iou_type)
    if message.startswith("not a JSON"):
        return
    with pytest.raises(InputError, match=rf"truth\.json: .*{message}"):
        coco_average_precision(read_coco(path), results, iou_type=iou_type)


def test_numpy_numbers_of_python_callers_score_alike(scene):
    truth, results = scene
    for iou_type in IOU_TYPES:
        expected = coco_average_precision(truth, results, iou_type=iou_type)
        changed = copy.deepcopy(truth), copy.deepcopy(results)
        for entry in (*changed[0]["annotations"], *changed[1]):
            entry["image_id"], entry["bbox"] = np.int64(entry["image_id"]), np.array(entry["bbox"])
            entry["segmentation"] = (
                [np.array(polygon) for polygon in entry["segmentation"]]
                if isinstance(entry["segmentation"], list)
                else {**entry["segmentation"], "size": tuple(entry["segmentation"]["size"])}
            )
        assert coco_average_precision(*changed, iou_type=iou_type) == expected


def test_iscrowd_may_be_a_boolean_or_a_float(scene):
    truth, results = scene
    expected = coco_average_precision(truth, results, iou_type="bbox")
    for kind in (bool, float):
        for annotation in truth["annotations"]:
            annotation["iscrowd"] = kind(annotation["iscrowd"])
        assert coco_average_precision(truth, results, iou_type="bbox") == expected


def test_results_with_boxes_here_and_there_are_refused(scene):
    truth, results = scene
    del results[0]["bbox"]
    with pytest.raises(InputError, match=r"\[1\]: has a bbox, but \[0\] has none"):
        coco_average_precision(truth, results, iou_type="bbox")


def test_results_of_unlisted_categories_are_refused_when_aware(scene):
    truth, results = scene
    results[2]["category_id"] = 4
    with pytest.raises(InputError, match=r"\[2\]: category_id 4 is not in the ground truth"):
        coco_average_precision(truth, results, iou_type="bbox", class_agnostic=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a JSON file"),
        ("{}", "expected array, found object"),
        ("[1]", r"\[0\]: expected object, found int 1"),
    ],
)
def test_results_file_that_is_none_is_refused(scene, tmp_path, content, message):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"wrong\.json: {message}"):
        coco_average_precision(scene[0], path, iou_type="bbox")
    with pytest.raises(InputError, match=r"missing\.json: cannot be read"):
        coco_average_precision(scene[0], tmp_path / "missing.json", iou_type="bbox")


@pytest.mark.parametrize(
    ("iou_type", "change", "message"),
    [
        ("bbox", {"area": None}, r"\.area: expected float, found null"),
        ("bbox", {"bbox": None}, r"\.bbox: expected array, found null"),
        ("bbox", {"iscrowd": 2}, r" \(id 5\): iscrowd: expected 0 or 1, found 2"),
        ("segm", {"segmentation": None}, r"\.segmentation: expected .*array.*, found null"),
        ("segm", {"segmentation": []}, r" \(id 5\): segmentation: expected polygons"),
        ("segm", {"segmentation": [[1, 2, 3, 4]]}, r" \(id 5\): segmentation: expected polygons"),
        (
            "segm",
            {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
            r" \(id 5\): segmentation: expected polygons",
        ),
        (
            "segm",
            {"segmentation": _small_rle(3, 4)},
            r" \(id 5\): segmentation: expected size \[160, 200\]",
        ),
        (
            "segm",
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5]}},
            r" \(id 5\): segmentation: counts",
        ),
    ],
)
def test_malformed_ground_truth_names_annotation_and_key(scene, iou_type, change, message):
    truth, results = scene
    truth["annotations"][4].update(change)
    with pytest.raises(InputError, match=rf"ground truth: annotations\[4\]{message}"):
        coco_average_precision(truth, results, iou_type=iou_type)


def test_ground_truth_without_image_sizes_scores_boxes_only(scene):
    truth, results = scene
    expected = coco_average_precision(truth, results, iou_type="bbox")
    for image in truth["images"]:
        del image["height"], image["width"]
    assert coco_average_precision(truth, results, iou_type="bbox") == expected
    with pytest.raises(InputError, match="no height and width of image"):
        coco_average_precision(truth, results, iou_type="segm")


def test_ground_truth_that_is_none_and_unknown_iou_type_are_refused(scene, tmp_path):
    truth, results = scene
    with pytest.raises(InputError, match="ground truth: images: expected a value"):
        coco_average_precision({}, results, iou_type="bbox")
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        coco_average_precision(tmp_path / "none.json", results, iou_type="bbox")
    with pytest.raises(InputError, match="iou_type: expected 'bbox' or 'segm', found 'mask'"):
        coco_average_precision(truth, results, iou_type="mask")
    truth["annotations"][0]["category_id"] = 4
    with pytest.raises(InputError, match="category_id 4 is not listed"):
        coco_average_precision(truth, results, iou_type="bbox", class_agnostic=False)


def test_real_annotations_score_as_pycocotools_does(shared_data):
    path = shared_data / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text())
    coco = _silently(COCO, str(path))
    results = []
    for annotation in truth["annotations"][::2]:
        rle = coco.annToRLE(annotation)
        counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": annotation["bbox"],
                "segmentation": {"size": list(rle["size"]), "counts": counts},
                "score": 1.0,
            }
        )
    for iou_type in IOU_TYPES:
        found = coco_average_precision(path, results, iou_type=iou_type)
        by_hand = _by_hand(_as_one_category(truth), _one_category(results), iou_type)
        assert astuple(found) == by_hand
        assert 0.3 < found.AP < 0.7
        aware = coco_average_precision(truth, results, iou_type=iou_type, class_agnostic=False)
        assert astuple(aware) == _by_hand(truth, results, iou_type)


def _silently(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def test_format_table_is_aligned_and_in_percent():
    names = [field.name for field in fields(CocoScores)]
    assert names[:9] == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
    ]
    box = CocoScores(*(number / 80 for number in range(12)))
    mask = CocoScores(1.0, -1.0, *([0.0] * 10))
    header, boxes, masks = format_table(box, mask).splitlines()
    assert header.split() == [
        *("AP", "AP50", "AP75", "small", "medium", "large", "AR1", "AR10", "AR100")
    ]
    assert boxes.split() == ["box", *(f"{number / 0.8:.1f}" for number in range(9))]
    assert masks.split() == ["mask", "100.0", "-", *["0.0"] * 7]
    assert len(header) == len(boxes) == len(masks)
    assert format_table(box).splitlines() == [header, boxes]


def _resampled(truth: dict, results: list[dict], numbers: list[int]) -> tuple[dict, list[dict]]:
    """The images of these numbers under new ids, some of them several times."""
    images, annotations, entries = [], [], []
    for new_id, number in enumerate(numbers, start=1):
        image = truth["images"][number]
        images.append({**image, "id": new_id, "file_name": f"{new_id}.jpg"})
        for source, sink in ((truth["annotations"], annotations), (results, entries)):
            sink += [
                {**one, "image_id": new_id} for one in source if one["image_id"] == image["id"]
            ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {**truth, "images": images, "annotations": annotations}, entries


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("class_agnostic", [True, False])
def test_resampled_records_score_as_resampled_files(iou_type, tied, class_agnostic):
    rng = np.random.default_rng(11)
    truth = _ground_truth(rng)
    results = _results(rng, truth, tied)
    records = image_matches(truth, results, iou_type=iou_type, class_agnostic=class_agnostic)
    assert len(records) == len(truth["images"])
    for _ in range(5):
        numbers = rng.integers(0, len(records), len(records)).tolist()
        found = average_precision([records[number] for number in numbers])
        assert found == coco_average_precision(
            *_resampled(truth, results, numbers), iou_type=iou_type, class_agnostic=class_agnostic
        )
    whole = coco_average_precision(truth, results, iou_type=iou_type, class_agnostic=class_agnostic)
    assert average_precision(records) == whole  # the records stay as they are


def test_records_of_no_image_or_of_several_calls_are_refused():
    rng = np.random.default_rng(1)
    truth = _ground_truth(rng)
    first, second = (image_matches(truth, [], iou_type="bbox") for _ in range(2))
    assert average_precision(first).AP50 == 0
    with pytest.raises(InputError, match="matched together, found none"):
        average_precision([])
    with pytest.raises(InputError, match="matched together, found others"):
        average_precision([first[0], second[0]])
    assert image_matches(truth, [], iou_type="bbox", image_ids=[2])[0].matches


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("class_agnostic", [True, False])
def test_precision_by_recall_has_the_average_precision_as_its_area(scene, iou_type, class_agnostic):
    options = {"iou_type": iou_type, "class_agnostic": class_agnostic}
    records = image_matches(*scene, **options)
    scores, precision = average_precision(records), precision_by_recall(records)
    assert precision.shape == (10, 101)
    assert precision.mean() == pytest.approx(scores.AP)
    assert precision[0].mean() == pytest.approx(scores.AP50)
    assert precision[5].mean() == pytest.approx(scores.AP75)
    assert (np.diff(precision, axis=1) <= 1e-12).all()
    nothing = image_matches({**scene[0], "annotations": []}, [], **options)
    assert np.isnan(precision_by_recall(nothing)).all()
    with pytest.raises(InputError, match="matched together, found none"):
        precision_by_recall([])


def test_object_overlaps_are_those_of_the_masks(scene):
    truth, results = scene
    annotations = prepare_ground_truth(truth, "segm", True)["annotations"]
    overlaps = object_overlaps(image_matches(truth, results, iou_type="segm"))
    for image, found in zip(truth["images"], overlaps, strict=True):
        number = image["id"]
        objects = object_masks(
            [item for item in annotations if item["image_id"] == number], (HEIGHT, WIDTH)
        )
        masks = [decode_mask(r["segmentation"]) for r in results if r["image_id"] == number]
        stacked = np.array(masks, bool).reshape(-1, HEIGHT, WIDTH)
        np.testing.assert_allclose(found, best_overlaps(stacked, objects), atol=1e-12)
    assert not overlaps[0]
    assert overlaps[-1] == [0.0] * len(overlaps[-1])  # an image without results
    assert object_overlaps([]) == []


def test_object_overlaps_of_boxes_and_of_categories(scene):
    truth, results = scene
    records = image_matches(truth, results, iou_type="bbox", class_agnostic=False)
    for image, found in zip(truth["images"], object_overlaps(records), strict=True):
        expected = []
        for category in (3, 7, 20):
            of_both = [
                [
                    entry["bbox"]
                    for entry in entries
                    if entry["image_id"] == image["id"]
                    and entry["category_id"] == category
                    and not entry.get("iscrowd")
                ]
                for entries in (results, truth["annotations"])
            ]
            drawn = [np.zeros((len(boxes), HEIGHT, WIDTH), bool) for boxes in of_both]
            for masks, boxes in zip(drawn, of_both, strict=True):
                for mask, box in zip(masks, boxes, strict=True):
                    x, y, width, height = map(int, box)
                    mask[y : y + height, x : x + width] = True
            expected += mask_iou(*drawn).max(axis=0, initial=0.0).tolist()
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_resampled_ap_of_detections_is_that_of_pycocotools(scene, iou_type):
    records = image_matches(*scene, iou_type=iou_type)
    detections = json.loads(json.dumps(image_detections(records)))
    found = bootstrap_average_precision(detections, 30, seed=4)
    for name in ("AP", "AP50", "AP75"):
        expected = bootstrap_score(
            lambda r, n=name: getattr(average_precision(r), n), records, 30, 4
        )
        assert found[name].score == pytest.approx(expected.score, abs=1e-12)
        np.testing.assert_allclose(found[name].resampled, expected.resampled, atol=1e-12)
        np.testing.assert_allclose(found[name].interval(), expected.interval(), atol=1e-12)


def test_detections_without_objects_or_results_or_images(scene):
    truth, results = scene
    nothing = image_matches({**truth, "annotations": []}, results, iou_type="bbox")
    assert bootstrap_average_precision(image_detections(nothing), 3)["AP"].score == -1
    missed = image_matches(truth, [], iou_type="bbox")
    assert bootstrap_average_precision(image_detections(missed), 3)["AP50"].score == 0
    with pytest.raises(InputError, match="expected the record of one image or more, found none"):
        bootstrap_average_precision([], 3)
    by_category = image_matches(truth, results, iou_type="bbox", class_agnostic=False)
    with pytest.raises(InputError, match="expected images matched in one category, found 3"):
        image_detections(by_category)
