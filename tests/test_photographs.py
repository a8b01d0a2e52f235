"""The table of models on photographs: records kept, scores paired, what it refuses."""

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.data import open_labelled_scenes, write_scenes
from crate_interp.evaluation import bootstrap_score

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def photographs(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("photographs")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Four scenes as ECSSD, as VOC and as COCO, and as class folders."""
    root = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRATE_INTERP_DATA", str(root / "own"))
        scenes = open_labelled_scenes("val", 4)
    for name in (
        *("ecssd/images", "ecssd/ground_truth_mask", "voc/JPEGImages", "voc/SegmentationClass"),
        "voc/ImageSets/Segmentation",
    ):
        (root / name).mkdir(parents=True)
    names = []
    for number, record in enumerate(scenes.images.records):
        labels, name, picture = (
            scenes.labels_of(record, record.hw),
            record.path.stem,
            Image.open(record.path),
        )
        names.append(name)
        Image.fromarray(labels).save(root / "voc/SegmentationClass" / f"{name}.png")
        picture.save(root / "voc/JPEGImages" / f"{name}.jpg")
        salient = 255 * (labels > 0).astype(np.uint8)
        Image.fromarray(salient).save(root / "ecssd/ground_truth_mask" / f"{name}.png")
        picture.save(root / "ecssd/images" / f"{name}.jpg")
        for label in range(8):
            folder = root / "folders" / "val" / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            picture.resize((32, 32)).save(folder / f"{number}.png")
    (root / "voc/ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    write_scenes(root / "coco", 4)
    (root / "coco" / "demo").rename(root / "coco" / "tiny")
    annotations = root / "coco" / "annotations"
    (annotations / "instances_demo.json").rename(annotations / "instances_tiny.json")
    (root / "excluded.txt").write_text(f"{names[0]}.jpg\n")
    return root


def run(monkeypatch, photographs, *arguments):
    monkeypatch.setattr(sys, "argv", ["photographs", *map(str, arguments)])
    photographs.main()


@pytest.fixture
def arguments(sets, tmp_path):
    found = ["--ecssd", sets / "ecssd", "--voc", sets / "voc", "--coco", sets / "coco"]
    found += ["--coco-split", "tiny", "--folders", sets / "folders", "--size", 32]
    return [*found, "--resamples", 8, "--output", tmp_path / "out"]


def numbers_of(folder):
    with (folder / "photographs.csv").open() as file:
        return list(csv.DictReader(file))


def test_table_has_every_number_with_its_interval(
    monkeypatch, photographs, arguments, sets, tmp_path, capsys
):
    models = ["CRATE-alpha=demo", "ViT=demo_vit", "--rival", "ViT"]
    more = ["--exclude", sets / "excluded.txt", "--set", "cut.tau=0.3"]
    run(monkeypatch, photographs, *models, *arguments, *more)
    printed = capsys.readouterr().out
    numbers = numbers_of(tmp_path / "out")
    assert {row["set"]: row["pictures"] for row in numbers} == {
        "class folders": "32",
        "ECSSD": "4",
        "ECSSD, without the excluded": "3",
        "VOC": "4",
        "COCO": "4",
    }
    titles = {(row["set"], row["number"]) for row in numbers}
    assert len(titles) == 1 + 7 + 7 + 3 + 2
    own = [row for row in numbers if not row["minus"]]
    assert len(own) == 4 * len(titles)
    assert len(numbers) == (4 + 3) * len(titles)  # CRATE-alpha - ViT, and both untrained
    by_key = {(row["set"], row["number"], row["model"], row["minus"]): row for row in numbers}
    for row in numbers:
        assert float(row["low"]) <= float(row["score"]) + 1e-9 or row["set"] == "COCO"
        if row["minus"]:
            key = row["set"], row["number"]
            whole, taken = (by_key[(*key, name, "")] for name in (row["model"], row["minus"]))
            difference = float(whole["score"]) - float(taken["score"])
            assert float(row["score"]) == pytest.approx(difference, abs=2e-5)
    assert printed.strip() == (tmp_path / "out" / "photographs.md").read_text().strip()
    settings = [
        json.loads((folder / "settings.json").read_text())
        for folder in (tmp_path / "out" / "records").glob("saliency-*")
    ]
    assert {entry["tau"] for entry in settings} == {0.3}

    def refuse(_):
        raise AssertionError("what is there is measured again")

    monkeypatch.setattr("photograph_records.crate_interp", refuse)
    monkeypatch.setattr("photograph_records.measure_ranks", refuse)
    run(monkeypatch, photographs, *models, *arguments, *more)
    assert capsys.readouterr().out == printed


def test_seeds_of_a_row_are_averaged(monkeypatch, photographs, sets, tmp_path):
    models = ["one=demo", "both=demo,demo_vit", "other=demo_vit"]
    common = ["--ecssd", sets / "ecssd", "--size", 32, "--resamples", 20, "--seeds", 0]
    run(monkeypatch, photographs, *models, *common, "--output", tmp_path)
    scores = {(row["number"], row["model"]): float(row["score"]) for row in numbers_of(tmp_path)}
    for number in {number for number, _ in scores}:
        mean = (scores[number, "one"] + scores[number, "other"]) / 2
        assert scores[number, "both"] == pytest.approx(mean, abs=2e-5)


def test_untrained_twins_have_seeds_of_their_own(monkeypatch, photographs, tmp_path):
    rows = photographs.read_rows(["demo"], 2, tmp_path)
    assert [len(sources) for sources in rows.values()] == [1, 2]
    first, second = (Path(path).read_bytes() for path in rows["demo, untrained"])
    assert first != second
    again = photographs.read_rows(["demo"], 2, tmp_path)
    assert again == rows


def test_differences_are_paired_and_twins_have_none(photographs):
    scores = {
        name: bootstrap_score(np.mean, values, 50)
        for name, values in {
            "a": [1.0, 2, 3],
            "b": [0.0, 1, 2],
            "a, untrained": [0.5, 1.5, 2.5],
        }.items()
    }
    lines = list(photographs.lines_of(scores, "b"))
    assert [(row, other) for row, other, _ in lines[3:]] == [("a", "b"), ("a", "a, untrained")]
    assert lines[3][2].interval() == pytest.approx((1.0, 1.0))
    assert photographs.cell(lines[3][2], True) == "+100.0 [+100.0, +100.0]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "name a set"),
        (["demo", "--ecssd", "e", "--set", "cut.tau"], "--set cut.tau: expected GROUP.OPTION"),
        (["demo", "--ecssd", "e", "--set", "other.tau=1"], "expected GROUP.OPTION=VALUE, of cut"),
        (["demo", "demo", "--ecssd", "e"], "demo: named twice"),
        (["demo", "--ecssd", "e", "--rival", "ViT"], "--rival ViT: expected one of demo"),
    ],
)
def test_wrong_arguments_are_refused(
    monkeypatch, photographs, tmp_path, capsys, arguments, message
):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, photographs, *arguments, "--output", tmp_path)
    assert message in f"{stopped.value}{capsys.readouterr().err}"


def test_what_cannot_be_measured_stops_the_table(monkeypatch, photographs, sets, tmp_path):
    (tmp_path / "images").mkdir()
    common = ["--size", 32, "--seeds", 0, "--output", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"benchmark saliency .*: exit code 2"):
        run(monkeypatch, photographs, "demo", "--ecssd", tmp_path, *common)
    (tmp_path / "names.txt").write_text("nothing.jpg")
    with pytest.raises(SystemExit, match="names what is not in ECSSD"):
        run(
            *(monkeypatch, photographs, "demo", "--ecssd", sets / "ecssd", *common),
            *("--exclude", tmp_path / "names.txt"),
        )
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "a" / "x.png")
    with pytest.raises(SystemExit, match="found 1 classes, expected 8"):
        run(monkeypatch, photographs, "demo", "--folders", tmp_path, *common)
