"""The command `curves`: which numbers of the run folders are drawn, and what it refuses.

And the page that `train` makes of the same numbers.
"""

import json
import re

import numpy as np
import pytest
from PIL import Image

import crate_interp.visualization as visualization
from crate_interp.cli import main
from crate_interp.commands.training_page import training_page
from crate_interp.errors import InputError

HEADER = "step,loss,learning_rate,gradient_norm,accuracy,seconds"
ROWS = ["10,2.5,1e-3,1.0,,4", "20,2.0,1e-3,1.0,0.25,8", "30,1.5,1e-3,1.0,0.5,14"]


@pytest.fixture
def make_run(tmp_path):
    def make(name, lines=(HEADER, *ROWS), probes=None, **settings):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        basis = {"model": "demo", "model_args": {}, "image_size": 32, "batch_size": 64}
        (folder / "settings.json").write_text(json.dumps(basis | settings))
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n" if lines else "")
        if probes:
            (folder / "probes.csv").write_text("\n".join(probes) + "\n")
        return folder

    return make


@pytest.fixture
def drawn(monkeypatch):
    """Panels and x label of the last figure."""
    seen = {}
    draw = visualization.draw_curves

    def keep(panels, x_label, **options):
        seen["x_label"] = x_label
        seen["panels"] = {panel.title: {c.run: c for c in panel.curves} for panel in panels}
        return draw(panels, x_label, **options)

    monkeypatch.setattr(visualization, "draw_curves", keep)
    return seen


def run(*arguments, tmp_path):
    output = tmp_path / "figures" / "curves.png"
    return main(["curves", *map(str, arguments), "--output", str(output)])


def test_curves_draws_loss_and_accuracy_and_writes_both_files(make_run, tmp_path, drawn):
    assert run(make_run("first"), make_run("second"), tmp_path=tmp_path) == 0
    panels = drawn["panels"]
    assert list(panels) == ["training loss", "validation accuracy (%)"]
    name = "first: demo, 32 px"
    assert list(panels["training loss"]) == [name, "second: demo, 32 px"]
    np.testing.assert_array_equal(panels["training loss"][name].x, [10, 20, 30])
    np.testing.assert_array_equal(panels["training loss"][name].y, [[2.5], [2.0], [1.5]])
    accuracy = panels["validation accuracy (%)"][name].y
    np.testing.assert_array_equal(accuracy, [[np.nan], [25.0], [50.0]])
    with Image.open(tmp_path / "figures" / "curves.png") as picture:
        assert picture.width > 900
    assert (tmp_path / "figures" / "curves.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("unit", "label", "own"),
    [
        ("steps", "updates", [10, 20, 30]),
        ("pictures", "images seen", [640, 1280, 1920]),
        ("seconds", "training time (seconds)", [4, 8, 14]),
    ],
)
def test_curves_starts_a_chained_run_where_its_initial_weights_end(
    make_run, tmp_path, drawn, unit, label, own
):
    first = make_run("first")
    second = make_run("second", initial_weights=str(first / "model.safetensors"))
    third = make_run("third", initial_weights=str(second / ".." / "second" / "best.safetensors"))
    other = make_run("other", initial_weights="published")
    assert run(third, first, second, other, "--x", unit, tmp_path=tmp_path) == 0
    assert drawn["x_label"] == label
    found = {name.partition(":")[0]: c.x for name, c in drawn["panels"]["training loss"].items()}
    for name, before in (("first", 0), ("other", 0), ("second", 1), ("third", 2)):
        np.testing.assert_allclose(found[name], np.array(own) + before * own[-1])
    assert "third: demo, 32 px, from second" in drawn["panels"]["training loss"]
    assert run(third, second, tmp_path=tmp_path) == 0  # the first is not in this figure
    found = {name.partition(":")[0]: c.x for name, c in drawn["panels"]["training loss"].items()}
    np.testing.assert_allclose(found["second"], [10, 20, 30])


def test_curves_tells_long_times_in_hours(make_run, tmp_path, drawn):
    rows = [HEADER, "1,2,1,1,,7200", "2,2,1,1,,14400"]
    assert run(make_run("long", rows), "--x", "seconds", tmp_path=tmp_path) == 0
    assert drawn["x_label"] == "training time (hours)"
    assert list(drawn["panels"]) == ["training loss"]
    np.testing.assert_allclose(drawn["panels"]["training loss"]["long: demo, 32 px"].x, [2, 4])


def test_curves_draws_probes_with_the_blocks_together(make_run, tmp_path, drawn):
    probes = ["step,attention_miou_mass,mask_ap50,rate_0,rate_1", "10,0.1,,5,6", "25,0.2,nan,4,3"]
    folder = make_run("probed", probes=probes)
    assert run(folder, make_run("plain"), "--x", "seconds", tmp_path=tmp_path) == 0
    panels = drawn["panels"]
    assert list(panels)[2:] == ["attention mIoU mass (%)", "rate, by block (first: pale)"]
    (share,) = panels["attention mIoU mass (%)"].values()
    np.testing.assert_allclose(share.y, [[10], [20]])
    blocks = panels["rate, by block (first: pale)"]
    assert list(blocks) == ["probed: demo, 32 px"]
    (curve,) = blocks.values()
    np.testing.assert_array_equal(curve.y, [[5, 6], [4, 3]])
    np.testing.assert_allclose(curve.x, [4, 11])  # halfway between the lines of 8 and 14 seconds


def test_curves_has_shares_in_percent_and_non_zeros(make_run, tmp_path, drawn):
    probes = ["step,mask_ap50,sparsity_0,sparsity_1,coding_rate_0", "10,0.125,0.25,0.5,7"]
    assert run(make_run("probed", probes=probes), tmp_path=tmp_path) == 0
    found = {title: next(iter(curves.values())).y for title, curves in drawn["panels"].items()}
    np.testing.assert_allclose(found["mask AP50 (%)"], [[12.5]])
    np.testing.assert_allclose(
        found["codes that are not zero (%), by block (first: pale)"], [[75, 50]]
    )
    np.testing.assert_allclose(found["coding rate (nats), by block (first: pale)"], [[7]])


def test_curves_names_runs_of_equal_folder_names_by_their_paths(make_run, tmp_path, drawn):
    paths = [make_run("a/run", model_args={"depth": 2}), make_run("b/run")]
    assert run(*paths, tmp_path=tmp_path) == 0
    names = list(drawn["panels"]["training loss"])
    assert names == [f"{paths[0]}: demo, depth 2, 32 px", f"{paths[1]}: demo, 32 px"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "metrics.csv, line 1: expected columns"),
        ([HEADER], "metrics.csv: expected a line of numbers or more, found none"),
        (["step,loss", "1,2"], "metrics.csv, line 1: expected columns"),
        ([HEADER, ROWS[0], "20,2.0"], "metrics.csv, line 3: expected 6 cells, found 2"),
        ([HEADER, "10,much,1,1,,4"], "metrics.csv, line 2: loss: expected a finite number"),
        ([HEADER, "10,inf,1,1,,4"], "metrics.csv, line 2: loss: expected a finite number"),
        ([HEADER, "10,2e300,1,1,,4"], "loss: expected a finite number of at most 1e+30"),
        ([HEADER, "9e307,2,1,1,,4"], "step: expected a finite number of at most 1e+30"),
        ([HEADER, "10,nan,1,1,,4"], "metrics.csv, line 2: loss: expected a number, found none"),
        ([HEADER, ROWS[1], ROWS[0]], "metrics.csv, line 3: step: expected more than 20, found 10"),
    ],
)
def test_curves_names_the_line_of_a_malformed_file(make_run, tmp_path, capsys, lines, message):
    assert run(make_run("broken", lines), tmp_path=tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.encode() + b"\n10,\xff,1,1,,4\n", "metrics.csv, line 2: expected UTF-8"),
        (HEADER.encode() + b"\n" + b"1" * 200_000 + b",1,1,1,,4\n", "metrics.csv, line 2: no CSV"),
        (HEADER.encode() + b'\n"10,1,1,1,,4\n', "metrics.csv, line 2: no CSV"),
        (b"\x00" * 1000, "metrics.csv, line 1: expected columns"),
    ],
)
def test_curves_names_a_file_of_other_bytes(make_run, tmp_path, capsys, content, message):
    folder = make_run("broken")
    (folder / "metrics.csv").write_bytes(content)
    assert run(folder, tmp_path=tmp_path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (b"\xff", "not a JSON file"),
        (b'{"model": "demo", "batch_size": 0}', "batch_size: "),
        (b'{"model": "demo", "batch_size": 1e400}', "batch_size: "),
        (b'{"model": "demo", "batch_size": 4, "model_args": [1]}', "model_args: "),
        (b'{"model": "demo", "batch_size": 4, "initial_weights": "a\\u0000"}', "initial_weights: "),
        (b'{"model": "' + 9999 * b"x" + b'", "batch_size": "4"}', "batch_size: "),
    ],
)
def test_curves_names_settings_of_other_types(make_run, tmp_path, capsys, settings, message):
    folder = make_run("broken")
    (folder / "settings.json").write_bytes(settings)
    assert run(folder, tmp_path=tmp_path) == 2
    error = capsys.readouterr().err
    assert f"{folder / 'settings.json'}: not the recipe of a training run: " in error
    assert message in error
    assert len(error) < 520


def test_curves_draws_names_that_look_like_formulas_and_overflows(make_run, tmp_path, drawn):
    folder = make_run("$\\frac{", (HEADER, "10,2.5,1e-3,inf,,4", ROWS[1]), model="a$b$_{")
    assert run(folder, tmp_path=tmp_path) == 0
    assert len(drawn["panels"]["training loss"]) == 1


def test_curves_refuses_what_is_no_training_run(make_run, tmp_path, capsys):
    def error_of(*arguments):
        assert run(*arguments, tmp_path=tmp_path) == 2
        return capsys.readouterr().err

    assert "found no metrics.csv" in error_of(tmp_path)
    folder = make_run("run")
    assert "expected each once" in error_of(folder, folder / ".." / "run")
    circle = make_run("circle", initial_weights=str(tmp_path / "circle" / "best.safetensors"))
    assert "come from itself" in error_of(circle)
    (folder / "settings.json").write_text('{"tau": 0.15}')
    assert "settings.json: not the recipe of a training run" in error_of(folder)
    (folder / "settings.json").unlink()
    assert "settings.json: not the recipe of a training run" in error_of(folder)
    assert main(["curves", str(folder), "--output", "curves.svg"]) == 2
    assert "ending in .png" in capsys.readouterr().err


def test_settings_of_any_length_give_a_short_legend(make_run, tmp_path, drawn):
    folder = make_run("long", model_args={"depth": "text" * 3000, "n" * 5000: 3})
    assert run(folder, tmp_path=tmp_path) == 0
    (name,) = drawn["panels"]["training loss"]
    assert name.startswith("long: demo, depth texttext")
    assert len(name) < 250


SIZED = [
    "step,tokencut_iou_160px_block-1,tokencut_iou_160px_block-2,tokencut_iou_224px_block-1,"
    "pca_iou_160px_block-1,coding_rate_160px_0,coding_rate_160px_1,coding_rate_224px_0",
    "0,0.1,0.2,0.3,0.4,5,6,7",
    "20,0.5,0.6,0.7,0.8,4,3,2",
]


def test_curves_shows_the_first_of_several_sizes_and_blocks(make_run, tmp_path, drawn):
    assert run(make_run("sized", probes=SIZED), tmp_path=tmp_path) == 0
    assert list(drawn["panels"])[2:] == [
        "TokenCut IoU at 160 px, block -1 (%)",
        "PCA IoU at 160 px, block -1 (%)",
        "coding rate at 160 px (nats), by block (first: pale)",
    ]
    (curve,) = drawn["panels"]["coding rate at 160 px (nats), by block (first: pale)"].values()
    np.testing.assert_array_equal(curve.y, [[5, 6], [4, 3]])


def test_curves_draws_the_numbers_that_are_named(make_run, tmp_path, drawn):
    folders = [make_run("a", probes=SIZED), make_run("b", probes=SIZED), make_run("plain")]
    numbers = ["accuracy", "tokencut_iou_224px_block-1", "pca_iou", "coding_rate_224px"]
    options = ["--numbers", *numbers, "--names", "CRATE-alpha", "CRATE", "ViT"]
    assert run(*folders, *options, tmp_path=tmp_path) == 0
    assert list(drawn["panels"]) == [
        "validation accuracy (%)",
        "TokenCut IoU at 224 px, block -1 (%)",
        "PCA IoU at 160 px, block -1 (%)",
        "coding rate at 224 px (nats), by block (first: pale)",
    ]
    assert list(drawn["panels"]["validation accuracy (%)"]) == ["CRATE-alpha", "CRATE", "ViT"]
    tokencut = drawn["panels"]["TokenCut IoU at 224 px, block -1 (%)"]
    assert list(tokencut) == ["CRATE-alpha", "CRATE"]
    np.testing.assert_allclose(tokencut["CRATE"].y, [[30], [70]])
    np.testing.assert_array_equal(tokencut["CRATE"].x, [0, 20])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--numbers", "iou"], "numbers: expected some of loss, validation_loss, accuracy, tokenc"),
        (["--numbers", "loss", "loss"], "numbers: expected each once"),
        (["--numbers", "validation_loss"], "expected what a run has measured, found validation"),
        (["--names", "a", "b"], "names: expected 1, one of each run, found 2"),
    ],
)
def test_curves_refuses_numbers_and_names_that_do_not_fit(
    make_run, tmp_path, capsys, options, message
):
    assert run(make_run("run", probes=SIZED), *options, tmp_path=tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_the_page_of_a_run_has_its_numbers_curves_and_recipe(make_run):
    probes = ["step,tokencut_iou,coding_rate_0,coding_rate_1", "0,0.2,9,8", "20,0.5,7,6"]
    folder = make_run("first", probes=probes, model="<b>mine</b>", data="photos")
    page = training_page(folder, finished=False)
    assert "&lt;b&gt;mine&lt;/b&gt;: training" in page
    assert "<b>" not in page
    assert "30 updates of 64 images by crate-interp train; stopped" in page
    rows = re.findall(r"<tr>\s*" + 4 * "<td>([^<]*)</td>" + "</tr>", page)
    assert rows == [
        ("training loss", "1.5", "30", "1.5 to 2.5"),
        ("validation accuracy (%)", "50", "30", "25 to 50"),
        ("TokenCut IoU (%)", "50", "20", "20 to 50"),
        ("coding rate (nats), last block", "6", "20", "6 to 8"),
    ]
    assert re.findall("</svg>(loss|accuracy|tokencut_iou|block .)</li>", page) == [
        *("loss", "accuracy", "tokencut_iou", "block 0", "block 1")
    ]
    assert "14 s, 137.1 images a second" in page
    assert "<tr><td>data</td><td>photos</td></tr>" in page


def test_no_page_is_made_of_a_run_without_a_line(make_run):
    with pytest.raises(InputError, match=r"metrics\.csv: expected a line of numbers or more"):
        training_page(make_run("empty", lines=[HEADER]), finished=True)
