"""The papers' items: their files, running them in part, again and with failures, their pages."""

import re
import shlex
from pathlib import Path

import pytest

from crate_interp import cli
from crate_interp.commands import find_commands, reproduce
from crate_interp.commands.paper_items import PaperItem, Step, find_items, read_item
from crate_interp.commands.published import (
    published_attention_miou,
    published_maskcut,
    published_top1,
)
from crate_interp.errors import InputError
from crate_interp.options.arguments import parse_arguments
from crate_interp.options.pipelines import find_pipeline
from crate_interp.training import read_recipe
from crate_interp.weights import resolve_name

ITEMS = find_items()
VERSIONS = [
    pytest.param(version, id=f"{name}-{'small' if small else 'full'}")
    for name, item in ITEMS.items()
    for small in (True, False)
    if (version := item.version(small))
]
ITEM = """
title: Masks <of> scenes
source: A paper, table 1
about: AP in percent.
numbers: [box AP50, mask AP50]
published:
  CRATE: [2.5, null]
small:
  steps:
    - row: CRATE-alpha
      command: maskcut --model demo --coco demo --limit 2 --size 64 --output {folder}/alpha
    - command: layers demo --model demo --limit 2 --size 64 --output {folder}/layers.png
  pictures: [layers.png]
  tables: [layers.csv]
"""
FAILING = """
title: A folder that is not there
source: A paper, table 2
about: Nothing.
small:
  steps:
    - command: layers {missing_pictures} --model demo --output {folder}/layers.png
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of two items."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "masks.yaml").write_text(ITEM)
    (folder / "failing.yaml").write_text(FAILING)
    monkeypatch.setattr(reproduce, "find_items", lambda: find_items(folder))
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_commands_of_the_ledger_are_accepted(version, tmp_path):
    made = []
    for step in version.steps:
        arguments = step.arguments(tmp_path, dict.fromkeys(step.data_names(), "place"))
        name, options = parse_arguments(find_commands(), arguments)
        made.append(options.output)
        if name == "train":
            keys = [f"{text}" for text in options.set or ()]
            read_recipe(find_pipeline(options.recipe, (), "recipe"), keys)
        if step.row:
            assert hasattr(type(options), "compared")
    assert len(set(made)) == len(made), "two commands write to one place"
    for name in (*version.pictures, *version.tables):
        assert any((tmp_path / name).is_relative_to(o) or o.parent == tmp_path for o in made)


def test_items_are_run_once_and_their_numbers_stand_beside_the_published(folder, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["reproduce", "masks", "--small", "--output", str(output)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"CRATE, published +2\.5 +-\n", printed)
    (measured,) = re.findall(r"CRATE-alpha, small +(\S+) +(\S+)", printed)
    assert cli.main(["compare", str(output / "small/masks/alpha")]) == 0
    header, _, row = (line.split("|") for line in capsys.readouterr().out.splitlines()[:3])
    compared = {name.strip(): cell.strip() for name, cell in zip(header, row, strict=True)}
    assert measured == (compared["box AP50"], compared["mask AP50"])

    journal = output / "small/masks/alpha/journal.jsonl"
    before = journal.stat().st_mtime_ns
    assert cli.main(command) == 0
    assert "$ crate-interp" not in capsys.readouterr().out
    assert journal.stat().st_mtime_ns == before
    pages = [output / "index.html", output / "small/masks/report.html"]
    for page in pages:
        text = page.read_text()
        assert "Masks &lt;of&gt; scenes" in text
        assert text.count('<img class="figure"') == 1
        assert f"<td>{measured[0]}</td>" in text
    assert "crate-interp layers demo --model demo" in pages[1].read_text()
    assert "<td>subspace</td>" in pages[1].read_text()  # the table of layers


def test_a_stopped_item_goes_on_behind_its_last_finished_command(
    folder, tmp_path, capsys, monkeypatch
):
    from crate_interp.commands.layers import Layers

    command = ["reproduce", "masks", "--small", "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(Layers, "run", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli.main(command) == cli.INTERRUPTED
    capsys.readouterr()
    assert cli.main(["reproduce", "--output", str(tmp_path / "out")]) == 0
    assert re.search(r"masks +1 of 2 steps +none", capsys.readouterr().out)
    assert cli.main(command) == 0
    ran = re.findall(r"^\$ crate-interp (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert ran == ["layers"]


def test_a_signal_that_stops_a_command_stops_all_of_them(folder, tmp_path, capsys, monkeypatch):
    from crate_interp.commands.maskcut import MaskCut

    monkeypatch.setattr(MaskCut, "run", lambda self: cli.TERMINATED)
    data = ["--data", f"missing_pictures={tmp_path / 'nowhere'}"]
    command = ["reproduce", "masks", "failing", "--small", "--output", str(tmp_path / "out"), *data]
    assert cli.main(command) == cli.TERMINATED
    captured = capsys.readouterr()
    assert "== failing" not in captured.out
    assert "failed" not in captured.err


def test_an_item_that_fails_is_named_and_the_others_are_run(folder, tmp_path, capsys):
    output = tmp_path / "out"
    data = ["--data", f"missing_pictures={tmp_path / 'nowhere'}"]
    assert cli.main(["reproduce", "all", "--small", "--output", str(output), *data]) == 1
    captured = capsys.readouterr()
    assert f"error: failing: {tmp_path / 'nowhere'}" in captured.err
    assert "failed: failing; see above" in captured.err
    assert "CRATE-alpha, small" in captured.out
    assert "Masks &lt;of&gt; scenes" in (output / "index.html").read_text()


def test_data_that_is_not_given_is_asked_for(folder, tmp_path, capsys):
    assert cli.main(["reproduce", "failing", "--small", "--output", str(tmp_path / "out")]) == 1
    assert "expected --data missing_pictures=PLACE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "items: expected all or some of failing, masks, found 'nothing'"),
        (["masks", "--data", "imagenet"], "data: expected NAME=PLACE, found 'imagenet'"),
    ],
)
def test_wrong_arguments_are_refused(folder, tmp_path, capsys, arguments, words):
    assert cli.main(["reproduce", *arguments, "--output", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_a_version_that_is_not_there_is_said_to_be_none(folder, tmp_path, capsys):
    assert cli.main(["reproduce", "masks", "--output", str(tmp_path / "out")]) == 1
    assert "masks: there is a small version only" in capsys.readouterr().err


def test_an_empty_ledger_lists_nothing(tmp_path):
    assert find_items(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[2.5, null]", "[2.5]"), "published: 'CRATE': expected 2 values"),
        (("about:", "abuot:"), "abuot: expected no such key"),
        (("command: maskcut", 'command: "maskcut \'x" #'), "No closing quotation"),
        (("numbers: [box AP50, mask AP50]\npublished:\n  CRATE: [2.5, null]\n", ""), "row: "),
        (("small:", "missing: It is.\nsmall:"), "expected either small or missing"),
    ],
)
def test_malformed_items_are_refused_by_name(tmp_path, change, words):
    path = tmp_path / "item.yaml"
    path.write_text(ITEM.replace(*change))
    with pytest.raises(InputError, match=words) as refused:
        read_item(path)
    assert str(path) in str(refused.value)


def test_an_item_without_commands_is_refused(tmp_path):
    path = tmp_path / "item.yaml"
    path.write_text(ITEM[: ITEM.index("small:")] + "small:\n  steps: []\n")
    with pytest.raises(InputError, match="steps: expected a command, found none"):
        read_item(path)


def test_places_may_have_spaces():
    step = Step("layers {pictures} --model demo --output {folder}/x.png")
    arguments = step.arguments(Path("a b"), {"pictures": "c d"})
    assert arguments == ["layers", "c d", "--model", "demo", "--output", "a b/x.png"]
    assert shlex.split(shlex.join(arguments)) == arguments


def test_every_item_says_where_it_is_published():
    assert len(ITEMS) >= 35
    for item in ITEMS.values():
        assert isinstance(item, PaperItem)
        assert "arXiv" in item.source or "page of" in item.source


@pytest.mark.parametrize("name", ["alpha-top1", "crate-top1"])
def test_accuracies_beside_costs_are_those_of_the_ledger(name):
    for row, (value,) in ITEMS[name].published.items():
        alias = row.replace("CRATE-alpha-", "crate_alpha_").replace("CRATE-", "crate_")
        architecture = str(resolve_name(alias.replace("/", ""))).split(".")[0]
        assert published_top1(architecture) == value


@pytest.mark.parametrize(
    ("row", "release"),
    [("CRATE-B/8", "crate_base_patch8_224.in21k"), ("DINO ViT-S/8", "vit_small_patch8_224.dino")],
)
def test_published_scores_are_those_of_the_ledger(row, release):
    item = ITEMS["emergence-maskcut"]
    values, _ = published_maskcut(release, "val2017", 5000)
    assert [values[name] for name in item.numbers] == item.published[row]
    miou, _ = published_attention_miou(release, "entries", "val", 1449)
    assert [miou] == ITEMS["emergence-voc"].published[row]


def _row_of_docs(name, item):
    """Row of the table of items in docs/ledger.md."""
    full = item.version(False)
    data = sorted({one for step in full.steps for one in step.data_names()}) if full else []
    needs = ", ".join(f"`{one}`" for one in data) or ("nothing more" if full else "as small")
    small = item.missing or "yes"
    return f"| `{name}` | {item.title} | {item.source} | {small} | {needs} |"


def test_the_docs_list_every_item_as_it_is():
    rows = [_row_of_docs(name, item) for name, item in ITEMS.items()]
    text = (Path(__file__).parents[2] / "docs/ledger.md").read_text(encoding="utf-8")
    listed = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 6]
    assert listed == rows
    assert f"{len(ITEMS)} tables and figures" in text
