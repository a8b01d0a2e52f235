"""The command `evaluate`: its table, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from crate_interp.commands.evaluate import Evaluate
from crate_interp.data import annotations_of, results_of
from crate_interp.errors import InputError
from crate_interp.evaluation import coco_average_precision, format_table
from crate_interp.structures import Instances


@pytest.fixture
def instances() -> Instances:
    masks = np.zeros((3, 60, 80), bool)
    masks[0, :50, :50] = True
    masks[1, 52:, :20] = True
    masks[2, 10:30, 55:75] = np.tri(20, dtype=bool)
    return Instances(masks, scores=np.array([0.9, 0.8, 0.7]))


@pytest.fixture
def root(tmp_path, instances):
    annotations = annotations_of(instances, 4, first_id=1)[:2]
    annotations[1]["category_id"] = 2
    truth = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": 60, "width": 80}
            for number in (4, 5)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in (1, 2)],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_tiny.json").write_text(json.dumps(truth))
    return tmp_path


def _results(root, entries):
    path = root / "results.json"
    path.write_text(json.dumps(entries))
    return path


def test_evaluate_prints_the_table_of_boxes_and_masks(root, instances, capsys):
    path = _results(root, results_of(instances, 4))
    assert Evaluate(results=path, coco="tiny", coco_root=root).run() == 0
    printed = capsys.readouterr().out
    truth = root / "annotations" / "instances_tiny.json"
    box, mask = (coco_average_precision(truth, path, iou_type=t) for t in ("bbox", "segm"))
    assert box.AP50 == mask.AP50 == pytest.approx(1.0)
    assert printed == format_table(box, mask) + "\n"
    assert Evaluate(results=path, annotations=truth).run() == 0
    assert capsys.readouterr().out == printed


def test_evaluate_reads_each_file_once(root, instances, monkeypatch, capsys):
    path = _results(root, results_of(instances, 4))
    read, opened = [], Path.open
    monkeypatch.setattr(Path, "open", lambda file, *mode: read.append(file) or opened(file, *mode))
    Evaluate(results=path, coco="tiny", coco_root=root).run()
    assert sorted(read) == [root / "annotations" / "instances_tiny.json", path]
    assert "mask" in capsys.readouterr().out


def test_evaluate_matches_categories_when_asked(root, instances, capsys):
    path = _results(root, results_of(instances, 4))
    Evaluate(results=path, coco="tiny", coco_root=root, category_aware=True).run()
    boxes = capsys.readouterr().out.splitlines()[1].split()
    assert boxes[:3] == ["box", "50.0", "50.0"]  # category 2 is never found


def test_evaluate_says_that_results_carry_no_masks(root, instances, capsys):
    entries = [
        {key: value for key, value in entry.items() if key != "segmentation"}
        for entry in results_of(instances, 4)
    ]
    path = _results(root, entries)
    assert Evaluate(results=path, coco="tiny", coco_root=root).run() == 0
    printed = capsys.readouterr().out
    assert "boxes only" in printed
    assert "mask " not in printed


def test_evaluate_of_no_results_scores_zero(root, capsys):
    path = _results(root, [])
    assert Evaluate(results=path, coco="tiny", coco_root=root).run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["box", "0.0"], ["mask", "0.0"]]


def test_evaluate_refuses_results_of_other_images(root, instances):
    path = _results(root, results_of(instances, 6))
    with pytest.raises(InputError, match=r"results\.json: \[0\]: image_id 6"):
        Evaluate(results=path, coco="tiny", coco_root=root).run()


def test_evaluate_refuses_masks_here_and_there(root, instances):
    entries = results_of(instances, 4)
    del entries[1]["segmentation"]
    path = _results(root, entries)
    with pytest.raises(InputError, match=r"results\.json: \[1\]\.segmentation"):
        Evaluate(results=path, coco="tiny", coco_root=root).run()


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_evaluate_refuses_what_is_no_results_file(root, content):
    path = root / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        Evaluate(results=path, coco="tiny", coco_root=root).run()


def test_evaluate_names_the_command_for_missing_annotations(root):
    path = _results(root, [])
    with pytest.raises(InputError, match="crate-interp download coco-val2017"):
        Evaluate(results=path, coco="val2017", coco_root=root).run()
    with pytest.raises(InputError, match="missing"):
        Evaluate(results=path, annotations=root / "missing.json").run()


def _run_folder(root, names, instances, annotated):
    """What `maskcut` leaves in its folder, with the same instances in every image."""
    folder = root / "run"
    folder.mkdir()
    entries = [entry for image_id in names for entry in results_of(instances, image_id)]
    images = [
        {"id": image_id, "file_name": name, "height": 60, "width": 80}
        for image_id, name in names.items()
    ]
    scores = {"box": {}, "mask": {}} if annotated else {}
    files = {
        "results": [{**entry, "score": 1.0} for entry in entries],
        "annotations": {"images": images, "annotations": [], "categories": []},
        "summary": {"average_precision": scores, "images": len(names), "failed": []},
        "settings": {},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "results.json"


def _table(truth, results, **options):
    scores = [coco_average_precision(truth, results, iou_type=t, **options) for t in TYPES]
    return format_table(*scores) + "\n"


TYPES = ("bbox", "segm")


def test_evaluate_scores_a_limited_run_on_its_own_images(root, instances, capsys, caplog):
    path = _run_folder(root, {5: "5.jpg"}, instances, annotated=True)
    truth = root / "annotations" / "instances_tiny.json"
    content = json.loads(truth.read_text())
    content["annotations"][0]["image_id"] = 5
    truth.write_text(json.dumps(content))
    Evaluate(results=path, annotations=truth).run()
    alone = capsys.readouterr().out
    assert alone == _table(truth, path, image_ids=[5])
    assert "a run on 1 images: scored on these 1 of the 2 images of" in caplog.text
    caplog.clear()
    Evaluate(results=path, annotations=truth, image_ids=["all"]).run()
    everywhere = capsys.readouterr().out
    assert everywhere == _table(truth, path) != alone
    assert not caplog.text


def test_evaluate_counts_images_of_a_run_that_failed(root, instances, capsys, caplog):
    path = _run_folder(root, {4: "4.jpg"}, instances, annotated=True)
    summary = path.with_name("summary.json")
    content = json.loads(summary.read_text())
    content["failed"] = [{"image_id": 5, "file_name": "5.jpg", "reason": "damaged"}]
    summary.write_text(json.dumps(content))
    Evaluate(results=path, coco="tiny", coco_root=root).run()
    truth = root / "annotations" / "instances_tiny.json"
    assert capsys.readouterr().out == _table(truth, path)
    assert not caplog.text


@pytest.mark.parametrize("file_names", [["4.jpg", "5.jpg"], ["a/4.jpg", "b/5.jpg"]])
def test_evaluate_matches_a_run_without_annotations_by_file_name(
    root, instances, capsys, caplog, file_names
):
    truth = root / "annotations" / "instances_tiny.json"
    content = json.loads(truth.read_text())
    for image, file_name in zip(content["images"], file_names, strict=True):
        image["file_name"] = file_name
    truth.write_text(json.dumps(content))
    path = _run_folder(root, {1: "5.jpg", 2: "4.jpg"}, instances, annotated=False)
    Evaluate(results=path, annotations=truth).run()
    numbered = json.loads(path.read_text())
    right = [{**entry, "image_id": {1: 5, 2: 4}[entry["image_id"]]} for entry in numbered]
    assert capsys.readouterr().out == _table(truth, right)
    assert "its 2 images are matched with those of" in caplog.text
    assert "by file name" in caplog.text


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        ({1: "6.jpg"}, {}, r"expected the image '6\.jpg' once in .*tiny\.json, found none"),
        ({1: "4.jpg"}, {"file_name": "a/4.jpg"}, ""),
        ({1: "4.jpg"}, {"height": 61}, r"image '4\.jpg': expected height and width \(61, 80\) of"),
        ({1: "4.jpg", 2: "x/4.jpg"}, {}, r"two images are the same one of"),
        ({7: "4.jpg"}, {"file_name": None}, r"images\[0\]: file_name: expected"),
    ],
)
def test_evaluate_refuses_names_that_match_no_image_or_two(
    root, instances, capsys, names, change, message
):
    truth = root / "annotations" / "instances_tiny.json"
    content = json.loads(truth.read_text())
    content["images"][0].update(change)
    if not message:  # two of that name, in two folders
        content["images"][1]["file_name"] = "b/4.jpg"
        message = r"expected the image '4\.jpg' once in .*tiny\.json, found 2 of that name"
    content["annotations"] = []
    truth.write_text(json.dumps(content))
    path = _run_folder(root, names, instances, annotated=False)
    with pytest.raises(InputError, match=message):
        Evaluate(results=path, annotations=truth).run()
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["summary.json", "annotations.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"images": [1], "failed": 3}'])
def test_evaluate_names_the_damaged_file_of_a_run(root, instances, name, content):
    path = _run_folder(root, {4: "4.jpg"}, instances, annotated=True)
    path.with_name(name).write_text(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        Evaluate(results=path, coco="tiny", coco_root=root).run()


@pytest.mark.parametrize("words", [["5"], ["list.txt"], ["list.json"]])
def test_evaluate_scores_the_images_it_is_told(root, instances, capsys, monkeypatch, words):
    monkeypatch.chdir(root)
    (root / "list.txt").write_text("5\n")
    (root / "list.json").write_text("[5]")
    path = _results(root, results_of(instances, 4))
    Evaluate(results=path, coco="tiny", coco_root=root, image_ids=words).run()
    truth = root / "annotations" / "instances_tiny.json"
    assert capsys.readouterr().out == _table(truth, path, image_ids=[5])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["4", "9"], "--image-ids: expected images of .*, found 1 others, such as 9"),
        (["4", "x"], "--image-ids: expected ids, one file of them, or all, found 'x'"),
        (["9" * 20], r"--image-ids: \[0\]: "),
        (["missing.txt"], r"missing\.txt: cannot be read"),
        (["list.json"], r"list\.json: \[0\]: expected int, found str"),
        (["empty.txt"], "--image-ids: expected images of .*, found none"),
        (["binary"], "binary: expected a list of image ids, found no text"),
    ],
)
def test_evaluate_refuses_other_image_ids(root, instances, monkeypatch, words, message):
    monkeypatch.chdir(root)
    (root / "list.json").write_text('["5"]')
    (root / "empty.txt").write_text("")
    (root / "binary").write_bytes(b"\xff\xfe\xff")
    path = _results(root, results_of(instances, 4))
    with pytest.raises(InputError, match=message):
        Evaluate(results=path, coco="tiny", coco_root=root, image_ids=words).run()


def test_evaluate_warns_of_results_for_few_images(root, instances, capsys, caplog):
    truth = root / "annotations" / "instances_tiny.json"
    content = json.loads(truth.read_text())
    content["images"].append({**content["images"][0], "id": 6, "file_name": "6.jpg"})
    truth.write_text(json.dumps(content))
    path = _results(root, results_of(instances, 4))
    Evaluate(results=path, annotations=truth).run()
    assert "has results for 1 images: scored on all 3 images of" in caplog.text
    assert capsys.readouterr().out == _table(truth, path)


def test_evaluate_refuses_to_match_categories_that_results_do_not_have(
    root, instances, capsys, caplog
):
    options = {"coco": "tiny", "coco_root": root, "category_aware": True}
    path = _run_folder(root, {4: "4.jpg"}, instances, annotated=True)
    with pytest.raises(InputError, match="is a run of MaskCut, whose masks have no categories"):
        Evaluate(results=path, **options).run()
    moved = _results(root, json.loads(path.read_text()))
    with pytest.raises(InputError, match=r"every result is of category 1, .* of 2 categories"):
        Evaluate(results=moved, **options).run()
    scored = _results(root, results_of(instances, 4))
    Evaluate(results=scored, **options).run()
    assert "every result is of category 1" in caplog.text
    assert capsys.readouterr().out


def test_evaluate_prints_odd_names_and_categories(root, instances, capsys):
    truth = root / "annotations" / "instances_tiny.json"
    content = json.loads(truth.read_text())
    content["categories"][0]["name"] = "\u202e\x1b[31m$_{\\"
    content["images"][0]["file_name"] = "\u2028\x07.jpg"
    truth.write_text(json.dumps(content))
    path = _results(root, results_of(instances, 4))
    assert Evaluate(results=path, annotations=truth).run() == 0
    assert "mask" in capsys.readouterr().out
