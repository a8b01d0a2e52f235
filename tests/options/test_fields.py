"""Options of a command and of its parts."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import pytest

from crate_interp.errors import InputError
from crate_interp.options import option, part_of, with_options_of
from crate_interp.options.arguments import parse_arguments


@dataclass(frozen=True, kw_only=True)
class Command:
    """Do something."""

    group: ClassVar[str] = "manage"
    summary: ClassVar[str] = "Do something."
    name: str = option("a name", "none", also=["label"])

    @classmethod
    def load(cls):
        return with_options_of(cls, [Part, Other], [("more", int, option("more", 1))], title="T")


@dataclass(frozen=True, kw_only=True)
class Part:
    sizes: list[int] = option("sizes", [1, 2], several=int)
    needed: Literal["a", "b"] = option("what cannot be left out")


@dataclass(frozen=True, kw_only=True)
class Other:
    share: float = option("a share", 0.5)


def parsed(*arguments):
    return parse_arguments({"do": Command}, ["do", *arguments])[1]


def test_a_command_has_the_options_of_its_parts():
    command = parsed("--needed", "b", "--sizes", "3", "4", "--more", "2")
    assert [own.name for own in fields(command)] == ["name", "more", "sizes", "needed", "share"]
    assert (command.more, command.title, type(command).__doc__) == (2, "T", Command.__doc__)
    assert part_of(command, Part) == Part(sizes=[3, 4], needed="b")
    assert part_of(command, Other) == Other(share=0.5)


def test_an_option_is_known_by_a_name_that_it_had(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text("label: x\nneeded: a\n")
    assert parsed("--label", "x", "--needed", "a").name == "x"
    assert parsed("--config", str(file)).name == "x"
    with pytest.raises(SystemExit):
        parsed("--lable", "x", "--needed", "a")
    assert "--lable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "missing: --needed"), (["--needed", "c"], "--needed: expected")]
)
def test_options_of_parts_are_checked(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert message in capsys.readouterr().err


def test_a_part_cannot_take_over_an_option_of_the_command():
    @dataclass(frozen=True, kw_only=True)
    class Clashing:
        name: int = option("another thing", 4)

    with pytest.raises(InputError, match="Clashing: expected options of its own, found name"):
        with_options_of(Command, [Clashing])
