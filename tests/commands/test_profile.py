"""The command `profile`: its table, its clock and its memory."""

import csv
import itertools

import pytest
import torch
from PIL import Image
from torch import nn

from crate_interp.cli import main
from crate_interp.commands import profile
from crate_interp.models import forward_cost
from crate_interp.runs import speed
from crate_interp.weights import create_on_meta, resolve_name


@pytest.fixture(autouse=True)
def short(monkeypatch, one_thread):
    monkeypatch.setattr(speed, "_TIMED_SECONDS", 0.0)


def test_profile_prints_and_writes_the_table(tmp_path, capsys):
    output = tmp_path / "tables" / "profile.csv"
    arguments = ["--size", "32", "--num-classes", "10", "--batch-size", "2", "--device", "cpu"]
    models = ["demo", "crate_alpha_T16"]
    assert main(["profile", *models, *arguments, "--output", str(output)]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [resolve_name(name) for name in models]
    assert [row["model"] for row in rows] == [str(name) for name in names]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == " ".join(profile._HEADINGS).split()
    for row, name, line in zip(rows, names, lines[1:], strict=False):
        model = create_on_meta(name, img_size=32, num_classes=10).eval()
        cost = forward_cost(model, torch.empty(1, 3, 32, 32, device="meta"))
        assert int(row["parameters"]) == cost.parameters
        assert int(row["flops"]) == 2 * int(row["multiply_adds"]) == cost.flops
        assert int(row["activations"]) == cost.activations
        assert float(row["images_per_second"]) > 0
        assert (row["size"], row["batch_size"], row["precision"]) == ("32", "2", "float32")
        found = line.split()
        assert found[0] == str(name)
        assert float(found[1]) == pytest.approx(cost.parameters / 1e6, abs=0.0051)
        assert float(found[3]) == pytest.approx(cost.multiply_adds / 1e9, abs=0.0051)
    assert "convolutions" in "\n".join(lines)


def test_speed_is_the_median_after_warm_up(monkeypatch):
    calls = []
    durations = [9.0, 1.0, 2.0, 2.0, 2.0, 3.0, 2.0, 2.0, 2.0, 50.0]
    ticks = itertools.chain.from_iterable(
        (100.0 * n, 100.0 * n + d) for n, d in enumerate(durations)
    )
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    model = nn.Linear(1, 1)
    model.register_forward_hook(lambda *_: calls.append(1))
    seconds = speed._seconds_a_run(model, torch.zeros(1, 1), "float32")
    assert seconds == 2.0
    assert len(calls) == 3 + 10


@pytest.mark.skipif(
    speed._memory(torch.device("cpu"), largest=True) is None, reason="no /proc/self/status here"
)
def test_peak_memory_is_that_of_weights_and_forward_pass(monkeypatch):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.Parameter(torch.ones(10_000_000))

        def forward(self, images):
            return (images.sum() + torch.ones(20_000_000)).sum()

    monkeypatch.setattr(speed, "create_backbone", lambda name, **sizes: Model())
    name, shape, device = resolve_name("demo"), (1, 3, 32, 32), torch.device("cpu")
    for _ in range(2):  # memory of an earlier model does not hide that of the next
        _, memory = speed.measure_speed(name, {}, shape, "float32", device)
        assert memory * 1.01 >= 40e6 + 80e6
        assert memory < 40e6 + 2 * 80e6 + 20e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_model"], "unknown model 'no_such_model'"),
        (["resnet50"], "resnet50.a1_in1k is a ResNet"),
        (["crate_alpha_T16", "--size", "40"], "crate_alpha_tiny_patch16_224"),
        (["demo", "--size", "0"], "size: expected at least 1"),
        (["demo", "--batch-size", "0"], "batch_size: expected at least 1"),
        (["demo", "--num-classes", "-1"], "num_classes: expected 0 or more"),
        (["demo", "--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_profile_names_what_is_wrong(arguments, message, capsys):
    assert main(["profile", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_profile_needs_a_model(capsys):
    with pytest.raises(SystemExit):
        main(["profile"])
    assert "usage" in capsys.readouterr().err


def test_counting_alone_measures_nothing_and_draws_published_accuracies(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(speed, "measure_speed", lambda *_: pytest.fail("speed was measured"))
    output, figure = tmp_path / "costs.csv", tmp_path / "accuracy.png"
    files = ["--output", str(output), "--figure", str(figure)]
    assert main(["profile", "crate_T16", "crate_alpha_B32", "--count-only", *files]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["images_per_second"] for row in rows] == ["", ""]
    assert [row["peak_memory_bytes"] for row in rows] == ["", ""]
    assert int(rows[0]["multiply_adds"]) > 1e9
    assert "Images/s" not in capsys.readouterr().out
    with Image.open(figure) as drawn:
        assert drawn.size[0] > 600


def test_a_figure_without_published_accuracy_is_refused(tmp_path, capsys):
    figure = tmp_path / "accuracy.png"
    assert main(["profile", "demo", "--count-only", "--figure", str(figure)]) == 2
    printed = capsys.readouterr()
    assert f"{figure}: expected a model with a published top-1" in printed.err
    assert not printed.out  # before anything is measured
    assert main(["profile", "demo", "--figure", "accuracy.jpg"]) == 2
    assert "ends in .png" in capsys.readouterr().err
