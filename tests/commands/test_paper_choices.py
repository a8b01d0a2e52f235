"""What papers leave open: the commands of other choices, and the table of what they change."""

import csv
import re

import pytest

from crate_interp import cli
from crate_interp.commands import find_commands, reproduce
from crate_interp.commands.paper_choices import CHOICES, choices_of
from crate_interp.commands.paper_items import find_items, read_item
from crate_interp.errors import InputError
from crate_interp.options.arguments import parse_arguments

ITEM = """
title: Masks of scenes
source: A paper, arXiv 1
about: AP in percent.
numbers: [box AP, mask AP]
small:
  steps:
    - row: CRATE-alpha
      command: maskcut --model demo --coco demo --limit 3 --visualize 0 --output {folder}/alpha
open:
  - question: Threshold
    chosen: Of 0.15.
    others:
      none: {arguments: --tau 0.15}
      high: {arguments: --tau 0.6, number: box AP}
  - question: Colours
    chosen: Red.
    effect: a figure without a number
  - question: Paper
    chosen: White.
"""
LEDGER = choices_of(find_items())[CHOICES]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A ledger of one item with choices."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "masks.yaml").write_text(ITEM)
    monkeypatch.setattr(reproduce, "find_items", lambda: find_items(folder))
    return folder


@pytest.mark.parametrize("small", [True, False])
def test_commands_of_all_choices_are_accepted_and_write_to_places_of_their_own(small, tmp_path):
    steps = LEDGER.version(small).steps
    made = []
    for step in steps:
        arguments = step.arguments(tmp_path, dict.fromkeys(step.data_names(), "place"))
        _, options = parse_arguments(find_commands(), arguments)
        made.append(options.output)
    assert len(steps) >= 20
    assert len(set(made)) == len(made)


def test_choices_are_measured_beside_what_was_chosen(folder, tmp_path, capsys):
    command = ["reproduce", "choices", "--small", "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"masks: Threshold: none +mask AP +(\S+) +\1 +\+0.0 \[", printed)
    ran = re.findall(r"^\$ crate-interp (.*)", printed, re.MULTILINE)
    assert [("tau" in line) for line in ran] == [False, True, True]
    place = tmp_path / "out/small/choices"
    with (place / "effects.csv").open() as file:
        alike, other, colours, paper = csv.DictReader(file)
    assert alike["as chosen"] == alike["instead of it"]
    assert alike["change"] == "+0.0 [+0.0, +0.0]"
    assert alike["number"] == "mask AP"
    assert other["number"] == "mask AP / box AP"
    runs = [str(place / "masks/alpha"), *map(str, sorted((place / "masks").glob("choice*6")))]
    assert cli.main(["compare", *runs, "--output", str(tmp_path / "two.csv")]) == 0
    with (tmp_path / "two.csv").open() as file:
        chosen, changed = csv.DictReader(file)
    assert other["as chosen"] == f"{100 * float(chosen['mask AP']):.1f}"
    assert other["instead of it"] == f"{100 * float(changed['box AP']):.1f}"
    assert colours["change"] == "a figure without a number"
    assert paper["change"] == "not measured"
    page = (tmp_path / "out/index.html").read_text()
    assert "<td>Threshold</td><td>Of 0.15.</td><td>high</td>" in page
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "$ crate-interp" not in capsys.readouterr().out


def test_items_without_other_choices_give_none(tmp_path):
    assert choices_of({}) == {}
    (tmp_path / "masks.yaml").write_text(ITEM[: ITEM.index("open:")])
    assert choices_of(find_items(tmp_path)) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("{arguments: --tau 0.15}", "{}"), "'none': expected arguments or a number"),
        (("--tau 0.15}", '"--tau \'x"}'), "No closing quotation"),
        (("numbers: [box AP, mask AP]", ""), "row: "),
        (("row: CRATE-alpha\n      ", ""), None),
    ],
)
def test_malformed_choices_are_refused_by_name(tmp_path, change, words):
    path = tmp_path / "item.yaml"
    path.write_text(ITEM.replace(*change))
    if words is None:  # no command has a number, so no choice is measured
        assert choices_of({"item": read_item(path)}) == {}
        return
    with pytest.raises(InputError, match=words) as refused:
        read_item(path)
    assert str(path) in str(refused.value)
