"""The command `evaluate`: its table, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from crate_interp.config import EvaluateConfig
from crate_interp.data import annotations_of, results_of
from crate_interp.errors import InputError
from crate_interp.evaluation import coco_average_precision, format_table
from crate_interp.structures import Instances
from crate_interp.tasks.evaluate import run


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
    assert run(EvaluateConfig(results=path, coco="tiny", coco_root=root)) == 0
    printed = capsys.readouterr().out
    truth = root / "annotations" / "instances_tiny.json"
    box, mask = (coco_average_precision(truth, path, iou_type=t) for t in ("bbox", "segm"))
    assert box.AP50 == mask.AP50 == pytest.approx(1.0)
    assert printed == format_table(box, mask) + "\n"
    assert run(EvaluateConfig(results=path, annotations=truth)) == 0
    assert capsys.readouterr().out == printed


def test_evaluate_reads_each_file_once(root, instances, monkeypatch, capsys):
    path = _results(root, results_of(instances, 4))
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file) or read_bytes(file))
    run(EvaluateConfig(results=path, coco="tiny", coco_root=root))
    assert sorted(read) == [root / "annotations" / "instances_tiny.json", path]
    assert "mask" in capsys.readouterr().out


def test_evaluate_matches_categories_when_asked(root, instances, capsys):
    path = _results(root, results_of(instances, 4))
    run(EvaluateConfig(results=path, coco="tiny", coco_root=root, category_aware=True))
    boxes = capsys.readouterr().out.splitlines()[1].split()
    assert boxes[:3] == ["box", "50.0", "50.0"]  # category 2 is never found


def test_evaluate_says_that_results_carry_no_masks(root, instances, capsys):
    entries = [
        {key: value for key, value in entry.items() if key != "segmentation"}
        for entry in results_of(instances, 4)
    ]
    path = _results(root, entries)
    assert run(EvaluateConfig(results=path, coco="tiny", coco_root=root)) == 0
    printed = capsys.readouterr().out
    assert "boxes only" in printed
    assert "mask " not in printed


def test_evaluate_of_no_results_scores_zero(root, capsys):
    path = _results(root, [])
    assert run(EvaluateConfig(results=path, coco="tiny", coco_root=root)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["box", "0.0"], ["mask", "0.0"]]


def test_evaluate_refuses_results_of_other_images(root, instances):
    path = _results(root, results_of(instances, 6))
    with pytest.raises(InputError, match=r"results\.json: \[0\]: image_id 6"):
        run(EvaluateConfig(results=path, coco="tiny", coco_root=root))


def test_evaluate_refuses_masks_here_and_there(root, instances):
    entries = results_of(instances, 4)
    del entries[1]["segmentation"]
    path = _results(root, entries)
    with pytest.raises(InputError, match=r"results\.json: \[1\]\.segmentation"):
        run(EvaluateConfig(results=path, coco="tiny", coco_root=root))


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_evaluate_refuses_what_is_no_results_file(root, content):
    path = root / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        run(EvaluateConfig(results=path, coco="tiny", coco_root=root))


def test_evaluate_names_the_command_for_missing_annotations(root):
    path = _results(root, [])
    with pytest.raises(InputError, match="crate-interp download coco-val2017"):
        run(EvaluateConfig(results=path, coco="val2017", coco_root=root))
    with pytest.raises(InputError, match="missing"):
        run(EvaluateConfig(results=path, annotations=root / "missing.json"))
