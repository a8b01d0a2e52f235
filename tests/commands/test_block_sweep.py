"""Commands over every block: the numbers are those of the blocks run one by one."""

import csv

import pytest

from crate_interp.cli import main
from crate_interp.commands.compare import read_run

SMALL = ["--limit", "2", "--size", "48", "--workers", "0", "--format", "png"]
MASKCUT = ["maskcut", "--model", "demo_crate", "--coco", "demo", "--visualize", "0", *SMALL]
VOC = ["benchmark", "voc2012", "demo", "--model", "demo_crate", *SMALL]

pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("command", "metric"), [(MASKCUT, "mask AP50"), (VOC, "mIoU, best head")])
def test_rows_are_the_numbers_of_each_block(command, metric, tmp_path, capsys):
    assert main([*command, "--by-block", "--output", str(tmp_path / "all")]) == 0
    printed = capsys.readouterr().out
    rows = rows_of(tmp_path / "all/blocks.csv")
    assert [row["block"] for row in rows] == ["0", "1", "2", "3"]
    assert (tmp_path / "all/blocks.png").is_file()
    assert "block, %" in printed
    assert main([*command, "--block", "1", "--output", str(tmp_path / "one")]) == 0
    _, single = read_run(tmp_path / "one")
    assert float(rows[1][metric]) == pytest.approx(100 * single.metrics[metric])


def test_a_stopped_sweep_goes_on_behind_its_finished_blocks(tmp_path):
    output = tmp_path / "all"
    command = [*MASKCUT, "--by-block", "--output", str(output)]
    assert main(command) == 0
    journal = output / "block-0/journal.jsonl"
    before = journal.read_bytes()
    (output / "blocks.csv").unlink()
    assert main(command) == 0
    assert journal.read_bytes() == before
    assert len(rows_of(output / "blocks.csv")) == 4


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([*MASKCUT, "--block", "1"], "--block: has no effect with --by-block"),
        ([*VOC, "--block", "1"], "--block: has no effect with --by-block"),
        (
            [
                "segment",
                "--method",
                "pca",
                "--images",
                "nowhere",
                "--model",
                "demo",
                "--block",
                "2",
            ],
            "--block: has no effect with --by-block",
        ),
    ],
)
def test_a_block_beside_all_is_refused(command, words, tmp_path, capsys):
    assert main([*command, "--by-block", "--output", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err


def test_images_without_a_ground_truth_give_no_table(tmp_path, capsys):
    from crate_interp.data import open_coco

    image = str(open_coco("photos").records[0].path)
    command = ["maskcut", "--model", "demo_crate", "--images", image, "--visualize", "0"]
    more = ["--size", "48", "--workers", "0", "--by-block", "--output", str(tmp_path / "run")]
    assert main([*command, *more]) == 2
    assert "expected images with a ground truth" in capsys.readouterr().err
