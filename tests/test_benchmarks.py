"""Benchmarks that are cheap when small: they run, and both sides agree."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp import InputError, Observer, load_backbone
from crate_interp.data import read_image
from crate_interp.segmentation.segmenter import SEGMENTERS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _run(monkeypatch, *arguments, name="coco_scoring"):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


def test_coco_scoring_equals_pycocotools_and_its_parts_add_up(monkeypatch, capsys):
    _run(monkeypatch, "--images", "4")
    printed = capsys.readouterr().out
    assert "all 24 numbers equal: yes" in printed
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"][2:]
    seconds = {part: [float(value) for value in values] for part, *values in rows}
    for column in (0, 1):
        parts = [values[column] for part, values in seconds.items() if part != "end to end"]
        assert sum(parts) == pytest.approx(seconds["end to end"][column], abs=0.04)


@pytest.mark.parametrize("option", ["--images", "--results-per-image"])
def test_coco_scoring_refuses_an_empty_set(monkeypatch, capsys, option):
    with pytest.raises(SystemExit):
        _run(monkeypatch, option, "0")
    assert "at least one image and one result" in capsys.readouterr().err


# Grows by 200 MB when three lines are written, as a process of the run.
GROWING = """
import subprocess, sys, time
child = "x = bytearray(2 * 10**8); import time; time.sleep(60)"
with open(sys.argv[1], "w", buffering=1) as journal:
    for line in range(3): journal.write("{}\\n")
    time.sleep(1)
    process = subprocess.Popen([sys.executable, "-c", child])
    time.sleep(1.5)
    for line in range(3): journal.write("{}\\n")
    time.sleep(1)
    process.kill()
    process.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_memory_is_that_of_all_processes_at_the_marks(tmp_path):
    memory = runpy.run_path(str(BENCHMARKS / "memory.py"))
    journal = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", GROWING, str(journal)]
    found = memory["measure"](command, journal, [1, 3, 5])
    assert list(found) == [1, 3, 5]
    assert found[1] == pytest.approx(found[3], abs=20)
    assert 200 < found[5] - found[3] < 260
    with pytest.raises(SystemExit):
        memory["measure"]([sys.executable, "-c", "raise SystemExit(2)"], journal, [])


def test_attention_rows_are_those_of_whole_maps(monkeypatch, capsys):
    options = ["--size", "32", "--repeats", "1", "--threads", "1"]
    options += ["--model", "vit_tiny_patch16_224"]
    _run(monkeypatch, *options, name="attention")
    printed = capsys.readouterr().out
    assert "12 blocks of 3 heads, 5 tokens" in printed
    assert float(printed.split()[-1]) < 1e-6
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line[:1] == "|"][2:] == [
        *("plain forward pass", "class-token rows", "whole maps")
    ]
    with pytest.raises(SystemExit):
        _run(monkeypatch, "--repeats", "0", name="attention")


def test_sparsity_is_that_of_the_codes_by_step_and_threshold(monkeypatch, capsys, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "classes/a", "classes/b"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            grey = np.uint8(255) * (pixels[..., 0] > 99)
            Image.fromarray(grey if folder == "masks" else pixels).save(
                tmp_path / folder / f"{number}.png"
            )
    options = ["demo", "--step-sizes", "0.1", "0.2", "--thresholds", "0.1", "1000", "--size", "16"]
    options += ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    options += ["--classes", str(tmp_path / "classes"), "--class-size", "16"]
    _run(monkeypatch, *options, name="sparsity")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()][2:]
    assert [row[:3] for row in rows] == [
        ["demo", eta, threshold] for eta in ("0.1", "0.2") for threshold in ("0.1", "1000")
    ]
    for row in rows[1::2]:  # nothing passes this threshold
        assert row[3:7] == ["0 0 0 0", "0.0", "100.0", "0.0"]
    model = load_backbone("demo", step_size=0.2)
    observer = Observer(model, 16)
    read = [read_image(tmp_path / "images" / f"{number}.png") for number in range(2)]
    codes = observer.activations(read, ["codes"], range(4))
    shares = [float((codes["codes", block][:, 1:] > 0).double().mean()) for block in range(4)]
    assert rows[2][3] == " ".join(f"{100 * share:.0f}" for share in shares)
    assert all(0 <= float(row[7]) <= 100 and 0 <= float(row[8]) <= 1 for row in rows)
    with pytest.raises(InputError, match=r"0\.png"):  # no mask there
        _run(monkeypatch, *options, "--masks", str(tmp_path / "classes"), name="sparsity")


def test_roofline_counts_what_the_forward_pass_multiplies():
    scaling = runpy.run_path(str(BENCHMARKS / "scaling.py"))
    # Eleven blocks whole, and the projection of the last one.
    work = scaling["forward_work"]("vit_tiny_patch16_224", 32)
    tokens, width = 5, 192
    blocks = 11 * 12 * width**2 * tokens + 3 * width**2 * tokens
    assert work["attention"] == 11 * 2 * 2 * tokens**2 * width
    assert work["linear"] == 2 * (blocks + 4 * 3 * 16**2 * width)  # and the patches
    peaks = {"float32": 1e9, "bfloat16": 2e9, "bytes": 1e12}
    seconds = work["attention"] / 2e9 + work["linear"] / 1e9
    assert scaling["roofline"](work, peaks) == pytest.approx(seconds)
    assert scaling["roofline"](work, {**peaks, "bytes": 1.0}) == work["bytes"]
    assert scaling["exponent"]([10, 100], [2.0, 200.0]) == pytest.approx(2.0)


def test_segmenters_are_all_in_the_table(monkeypatch, capsys):
    monkeypatch.setattr("logging.disable", lambda level: None)  # it would outlive the test
    arguments = ("--sets", "demo", "--model", "demo", "--size", "48", "--limit", "2")
    _run(monkeypatch, *arguments, "--resamples", "9", name="segmenters")
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    rows = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in lines[2:])}
    assert {title.split(", ")[0] for title in rows} >= set(SEGMENTERS.names())
    assert {"maskcut, one", "maskcut, cut", "maskcut, crf", "tokencut, bilateral"} <= rows.keys()
    differing = {title for title, cells in rows.items() if cells[2]}
    assert "promerge, contrast" in differing
    assert not differing & {"promerge, one", "maskcut, crf", "pca"}
    assert all(len(cells) == 7 for cells in rows.values())


def test_segmenters_refuse_a_set_that_there_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr("logging.disable", lambda level: None)  # as above
    with pytest.raises(InputError, match="nowhere"):
        _run(monkeypatch, "--sets", str(tmp_path / "nowhere"), "--model", "demo", name="segmenters")
