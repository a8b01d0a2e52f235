"""The command `compare`: its numbers are those of the runs, its intervals those of a bootstrap."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from crate_interp.cli import main
from crate_interp.commands import segment
from crate_interp.evaluation import (
    attention_segmentation_score,
    average_precision,
    bootstrap_score,
    image_matches,
    match_clusters,
    saliency_score,
    semantic_score,
    total_confusion,
)

MODEL = ["--size", "24", "--workers", "0", "--format", "png"]
METRICS = [f"{kind} {name}" for kind in ("box", "mask") for name in ("AP50", "AP75", "AP")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pictures of a bright rectangle each: annotations, and masks."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(1, 9):
        rgb, mask = rng.integers(0, 60, (30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
        x, y, w, h = *rng.integers(0, 12, 2).tolist(), *rng.integers(10, 18, 2).tolist()
        rgb[y : y + h, x : x + w] = rng.integers(150, 255, 3)
        mask[y : y + h, x : x + w] = 255
        Image.fromarray(rgb).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 30, "width": 40})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": w * h}
            | {"bbox": [x, y, w, h], "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    (root / "instances.json").write_text(json.dumps(content))
    return root


def run(command, data, output, model, *more):
    arguments = [*command.split(), "--model", model, *MODEL, "--output", str(output), *more]
    if command == "maskcut":
        arguments += ["--images", str(data / "images"), "--visualize", "0"]
        arguments += ["--annotations", str(data / "instances.json")]
    elif command == "benchmark saliency":
        arguments[2:2] = [str(data / "images"), str(data / "masks")]
    else:
        arguments[2:2] = [str(data)]
    assert main(arguments) == 0
    return output


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Three runs of MaskCut: two models, and one of these by other settings on fewer images."""
    root = tmp_path_factory.mktemp("runs")
    run("maskcut", data, root / "crate", "demo")
    run("maskcut", data, root / "vit", "demo_vit")
    run("maskcut", data, root / "few", "demo", "--limit", "5", "--tau", "0.4")
    return root


def compared(capsys, *places):
    capsys.readouterr()
    assert main(["compare", *map(str, places)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"]
    return [rows[0], *rows[2:]], [line for line in lines if line[:1] == "-"]


def csv_of(tmp_path, *places):
    assert main(["compare", *map(str, places), "--output", str(tmp_path / "table.csv")]) == 0
    return list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))


def entries_of(folder):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["entry"] for line in lines]


def test_the_table_has_the_scores_of_the_summaries(runs, capsys):
    (header, first, second, difference), notes = compared(capsys, runs / "crate", runs / "vit")
    assert header == ["%", *METRICS]
    for name, row, model in (
        ("crate", first, "crate_alpha_demo"),
        ("vit", second, "vit_demo"),
    ):
        scores = json.loads((runs / name / "summary.json").read_text())["average_precision"]
        expected = [f"{100 * scores[m.split()[0]][m.split()[1]]:.1f}" for m in METRICS]
        assert row[1:] == expected
        assert model in row[0]
    assert difference[0] == "difference to the first"
    assert all(
        re.fullmatch(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", cell) for cell in difference[1:]
    )
    assert "95 % intervals of 8 images in common (all), resampled 2,000 times" in notes[-1]


@pytest.mark.parametrize(
    ("other", "kind", "iou_type"), [("vit", "mask", "segm"), ("few", "box", "bbox")]
)
def test_differences_of_ap_are_those_of_a_direct_bootstrap(
    data, runs, other, kind, iou_type, tmp_path
):
    count = {"vit": 8, "few": 5}[other]
    _, row = csv_of(tmp_path, runs / "crate", runs / other)
    records = [
        image_matches(data / "instances.json", runs / name / "results.json", iou_type=iou_type)
        for name in ("crate", other)
    ]
    first, second = (
        bootstrap_score(lambda images: average_precision(images).AP50, of_run[:count])
        for of_run in records
    )
    expected = second - first
    found = [float(row[f"{kind} AP50 {part}"]) for part in ("difference", "low", "high")]
    np.testing.assert_allclose(found, [expected.score, *expected.interval()], atol=1e-12)
    assert float(row[f"{kind} AP50"]) == pytest.approx(second.score)


def test_other_settings_are_said_in_words(runs, capsys):
    rows, notes = compared(capsys, runs / "crate", runs / "few")
    assert [row[0] for row in rows[1:]] == [
        "crate_alpha_demo (crate)",
        "crate_alpha_demo (few)",
        "difference to the first",
    ]
    assert "other settings than the first run: " in notes[0]
    assert "limit is 5, not None" in notes[0]
    assert "tau is 0.4, not 0.15" in notes[0]
    assert "images count is 5, not 8" in notes[0]
    assert "folders" not in notes[0]
    assert "5 images in common (of 8 and 5)" in notes[1]


def test_published_numbers_stand_beside_the_measured(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segment, "published_maskcut", lambda *_: ({"mask AP": 1.7}, "Some_body"))
    run("maskcut", data, tmp_path / "run", "demo")
    rows, notes = compared(capsys, tmp_path / "run")
    assert rows[2] == ["published (Some_body)", "", "", "", "", "", "1.7"]
    assert not notes


def test_results_that_were_evaluated_compare_with_runs(data, runs, tmp_path, capsys):
    truth, scores = ["--annotations", str(data / "instances.json")], tmp_path / "scores.json"
    shutil.copy(runs / "vit" / "results.json", tmp_path / "other.json")
    for results in (runs / "vit" / "results.json", tmp_path / "other.json"):
        assert main(["evaluate", str(results), *truth, "--output", str(scores)]) == 0
        rows, notes = compared(capsys, runs / "crate", scores)
        expected, _ = compared(capsys, runs / "crate", runs / "vit")
        assert [row[1:] for row in rows] == [row[1:] for row in expected]
        assert ("vit_demo" in rows[2][0]) == ("vit" in str(results))
    by_category = [*truth, "--category-aware", "--output", str(scores)]
    content = json.loads((tmp_path / "other.json").read_text())
    for number, result in enumerate(content):
        result["score"] = 1 / (2 + number)
    (tmp_path / "other.json").write_text(json.dumps(content))
    assert main(["evaluate", str(tmp_path / "other.json"), *by_category]) == 0
    rows, notes = compared(capsys, runs / "crate", scores)
    assert "no intervals" in notes[-1]
    assert "[" not in "".join(rows[3])
    capsys.readouterr()


def voc_score(entries):
    return attention_segmentation_score([e for e in entries if e["classes"]], 21).mean_iou[
        "best head"
    ]


def saliency_iou(entries):
    return saliency_score([entry["methods"]["TokenCut"] for entry in entries]).iou


def cluster_score(entries):
    return semantic_score(match_clusters(total_confusion(entries, 2, 2))).mean_iou


@pytest.mark.parametrize(
    ("command", "metric", "score"),
    [
        ("benchmark voc2012", "mIoU, best head", voc_score),
        ("benchmark saliency", "TokenCut IoU", saliency_iou),
        ("benchmark semantic", "mIoU", cluster_score),
    ],
)
def test_differences_of_benchmarks_are_those_of_a_direct_bootstrap(
    data, tmp_path, command, metric, score
):
    more = ["--patches", "20"] if command.endswith("semantic") else []
    places = [run(command, data, tmp_path / name, name, *more) for name in ("demo", "demo_vit")]
    first, second = (bootstrap_score(score, entries_of(place)) for place in places)
    row = csv_of(tmp_path, *places)[1]
    expected = second - first
    found = [float(row[f"{metric} {part}"]) for part in ("difference", "low", "high")]
    np.testing.assert_allclose(found, [expected.score, *expected.interval()], atol=1e-12)
    assert float(row[metric]) == pytest.approx(second.score)


def training_run(folder, model, **changes):
    folder.mkdir()
    settings = {"model": model, "batch_size": 8, "steps": 4} | changes
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "metrics.csv").write_text(
        "step,loss,learning_rate,gradient_norm,accuracy,seconds,validation_loss\n"
        f"2,1.5,0.1,1,0.25,1,{settings['batch_size']}\n4,1.25,0.1,1,,2,\n"
    )
    (folder / "probes.csv").write_text("step,tokencut_iou\n2,0.125\n4,0.5\n")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_training_runs_have_the_last_of_each_number(tmp_path, capsys):
    one = training_run(tmp_path / "one", "demo")
    two = training_run(tmp_path / "two", "demo_vit", batch_size=16)
    rows, notes = compared(capsys, one, two)
    assert rows == [
        ["run", "accuracy", "validation_loss", "loss", "tokencut_iou"],
        ["demo", "0.25", "8", "1.25", "0.5"],
        ["demo_vit", "0.25", "16", "1.25", "0.5"],
        ["difference to the first", "+0", "+8", "+0", "+0"],
    ]
    assert "no intervals" in notes[-1]


def test_accuracies_of_classifiers_compare(tmp_path, capsys):
    for name, top1 in (("one", 0.5), ("two", 0.75)):
        content = {"command": "evaluate-classifier", "settings": {"model": name, "size": 24}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"top1": top1, "top5": 0.9}))
    rows, _ = compared(capsys, tmp_path / "one.json", tmp_path / "two.json")
    assert rows[1:] == [
        ["one", "50.0", "90.0"],
        ["two", "75.0", "90.0"],
        ["difference to the first", "+25.0", "+0.0"],
    ]


@pytest.mark.parametrize("suffix", ["md", "tex", "html", "csv"])
def test_every_format_holds_names_that_are_markup(tmp_path, suffix):
    name = "<script>&_100%|\n$a$"
    place = training_run(tmp_path / "one", name)
    table = tmp_path / f"table.{suffix}"
    assert main(["compare", str(place), "--output", str(table)]) == 0
    text = table.read_text()
    shown = {
        "md": r"\<script\>\&\_100%\|\\n$a$",
        "tex": r"<script>\&\_100\%|\textbackslash{}n\$a\$ & 0.25",
        "html": "<td>&lt;script&gt;&amp;_100%|\n$a$</td>",
        "csv": f'"{name}",0.25',
    }
    assert shown[suffix] in text
    if suffix == "csv":
        assert next(csv.DictReader(text.splitlines(keepends=True)))["run"] == name


def refused(capsys, *places, more=()):
    capsys.readouterr()
    assert main(["compare", *map(str, places), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_compared_is_said_in_one_line(data, runs, tmp_path, capsys):
    assert "no such run" in refused(capsys, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "found no settings.json" in refused(capsys, tmp_path / "empty")
    assert "evaluate" in refused(capsys, data / "instances.json")
    assert "not a JSON file" in refused(capsys, data / "images" / "1.png")
    training = training_run(tmp_path / "training", "demo")
    message = refused(capsys, runs / "crate", training)
    assert "expected numbers in common with" in message
    assert "found a run of train" in message
    (training / "model.safetensors").unlink()
    assert "expected a finished run, found no model.safetensors" in refused(capsys, training)
    message = refused(capsys, runs / "crate", more=["--output", str(tmp_path / "table.xlsx")])
    assert "expected a name ending in .md, .csv, .tex, .html" in message


def test_a_run_that_is_stopped_or_running_is_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "few", tmp_path / "stopped")
    with FileLock(tmp_path / "stopped" / ".lock"):
        assert "another process is writing this run" in refused(capsys, tmp_path / "stopped")
    (tmp_path / "stopped" / "summary.json").unlink()
    message = refused(capsys, runs / "crate", tmp_path / "stopped")
    assert "expected a finished run, found no summary.json" in message


def test_runs_without_a_score_or_a_common_image_are_refused(data, runs, tmp_path, capsys):
    images = ["--images", str(data / "images" / "1.png"), "--visualize", "0"]
    plain = ["maskcut", "--model", "demo", *MODEL, *images, "--output", str(tmp_path / "plain")]
    assert main(plain) == 0
    assert "expected a run with a score, found none" in refused(capsys, tmp_path / "plain")
    shutil.copytree(runs / "few", tmp_path / "renamed")
    matches = json.loads((tmp_path / "renamed" / "matches.json").read_text())
    renamed = {kind: {f"other {n}": v for n, v in of.items()} for kind, of in matches.items()}
    (tmp_path / "renamed" / "matches.json").write_text(json.dumps(renamed))
    assert "expected images in common" in refused(capsys, runs / "crate", tmp_path / "renamed")


@pytest.mark.parametrize(
    "damage",
    [
        lambda matches: {"box": matches["box"]} | {"mask": {}},
        lambda matches: matches | {"mask": {name: {"objects": 1} for name in matches["mask"]}},
        lambda matches: (
            matches | {"mask": {n: {**v, "right": [1] * 9} for n, v in matches["mask"].items()}}
        ),
        lambda matches: (
            matches | {"mask": {n: {**v, "objects": -1} for n, v in matches["mask"].items()}}
        ),
    ],
)
def test_damaged_matches_are_refused(runs, tmp_path, capsys, damage):
    shutil.copytree(runs / "few", tmp_path / "damaged")
    path = tmp_path / "damaged" / "matches.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    assert str(path) in refused(capsys, runs / "crate", tmp_path / "damaged")
