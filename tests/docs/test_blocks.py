"""Blocks of code of the pages: run where a reader can run them as they stand, else parsed.

A block with a title says in it what it needs (`bash title="Needs COCO"`) and is parsed alone.
"""

import ast
import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from crate_interp.cli import COMMANDS, main
from crate_interp.data import open_coco
from crate_interp.options.arguments import parse_arguments
from crate_interp.options.pipelines import find_pipeline
from crate_interp.training import read_recipe

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
FENCE = re.compile(r"^```(bash|python)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(?:crate-interp|.*-m crate_interp) (.*)$", re.M)
# The page of plug-ins is run by tests/plugins, and README is for reading: its blocks are parsed.
RUN_ELSEWHERE = ("README.md", "docs/plugins.md")
NEEDS = 'a block that cannot run as it stands says what it needs: ```bash title="Needs ..."'
LIMITS = {"limit": "2", "size": "64", "workers": "0", "dpi": "50", "measured": "3"}


@dataclass(frozen=True)
class Block:
    language: str
    needs: str | None
    code: str

    def commands(self):
        return [
            shlex.split(line, comments=True)
            for line in COMMAND.findall(self.code.replace("\\\n", " "))
        ]


def blocks_of(page):
    return [Block(language, needs or None, code) for language, needs, code in FENCE.findall(page)]


RUN = [name for name in PAGES if name not in RUN_ELSEWHERE]
RUN = [name for name in RUN if any(not block.needs for block in blocks_of(PAGES[name]))]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of a reader, who has photographs."""
    (tmp_path / "pictures").mkdir()
    for number, record in enumerate(open_coco("photos").records[:2]):
        content = record.path.read_bytes()
        (tmp_path / "pictures" / f"{number}{record.path.suffix}").write_bytes(content)
    (tmp_path / "photo.jpg").write_bytes(content)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PAGES)
def test_every_fence_is_read(name):
    opened = re.findall(r"^```(?:bash|python).*$", PAGES[name], re.M)
    assert len(opened) == len(blocks_of(PAGES[name]))


@pytest.mark.parametrize("name", [name for name in PAGES if name != "docs/plugins.md"])
def test_what_is_not_run_is_accepted(name):
    for block in blocks_of(PAGES[name]):
        if not block.needs and name in RUN:
            continue
        if block.language == "python":
            ast.parse(block.code)
        for arguments in block.commands():
            arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
            command, options = parse_arguments(COMMANDS, arguments)
            if command == "train":
                read_recipe(find_pipeline(options.recipe, (), "recipe"), [*(options.set or ())])


@pytest.mark.parametrize("name", RUN)
def test_blocks_run_as_they_stand(name, reader, one_thread, capsys):
    names = {}
    for block in blocks_of(PAGES[name]):
        if block.needs:
            continue
        if block.language == "python":
            exec(compile(block.code, name, "exec"), names)
            continue
        lines = [line for line in block.code.splitlines() if line and not line.startswith("#")]
        assert all(line.startswith("crate-interp ") for line in lines)
        for arguments in block.commands():
            assert main(quick(arguments)) == 0, f"{arguments}: {capsys.readouterr().err}"


def quick(arguments):
    """Give a command limits that it takes and does not have yet."""
    _, options = parse_arguments(COMMANDS, arguments)
    if options is None:
        return arguments
    taken = {field.name for field in fields(options)}
    for name in sorted(taken & set(LIMITS)):
        if f"--{name}" not in arguments:
            arguments = [*arguments, f"--{name}", LIMITS[name]]
    return [*arguments, "--format", "png"] if "format" in taken else arguments


def test_blocks_say_what_they_need_and_other_fences_are_left_out():
    assert blocks_of("") == []
    text = '```bash title="Needs COCO"\ncrate-interp models \\\n  --check\n```\n'
    text += "```toml\na = 1\n```\n```python\nx = 1\n```\n"
    block, python = blocks_of(text)
    assert (block.language, block.needs) == ("bash", "Needs COCO")
    assert block.commands() == [["models", "--check"]]
    assert (python.language, python.needs) == ("python", None)


def test_limits_are_given_where_they_are_missing():
    given = ["pca", "photos", "--model", "demo", "--limit", "6", "--output", "a.png"]
    assert quick(given)[: len(given)] == given
    assert quick(given).count("--limit") == 1
    assert "--workers" in quick(given)
    with pytest.raises(SystemExit):
        quick(["pca", "--no-such-option"])
