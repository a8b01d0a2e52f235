"""Benchmarks that are cheap when small: they run, and both sides agree."""

import runpy
import sys
from pathlib import Path

import pytest

COCO_SCORING = Path(__file__).parents[1] / "benchmarks" / "coco_scoring.py"


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [COCO_SCORING.name, *arguments])
    runpy.run_path(str(COCO_SCORING), run_name="__main__")


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
