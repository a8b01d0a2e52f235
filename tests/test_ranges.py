"""Every number that a user gives has a range, and nothing outside of it comes in."""

import dataclasses
import math
from typing import Annotated, Any, get_args, get_type_hints

import pytest

from crate_interp.cli import COMMANDS
from crate_interp.errors import InputError
from crate_interp.options.ranges import Range, _ranges_of, check_ranges
from crate_interp.training import Recipe
from crate_interp.training.sources import Source
from crate_interp.training.stages import Stage


def options_of(command):
    kind = COMMANDS[command].load()
    return kind.kind_for([]) if hasattr(kind, "kind_for") else kind


SETTINGS = [*map(options_of, COMMANDS), Recipe, Source, Stage]


def bare_numbers(hint):
    """Number types of a hint that no range goes with."""
    if getattr(hint, "__metadata__", ()):
        return []
    if hint in (int, float):
        return [hint]
    return [found for part in get_args(hint) for found in bare_numbers(part)]


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_range(kind):
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    assert [name for name in names if bare_numbers(hints[name])] == []


# Sources and stages are checked by the recipe, which says where they stand in it.
@pytest.mark.parametrize("kind", SETTINGS[:-2], ids=lambda kind: kind.__name__)
def test_ranges_are_checked_wherever_they_are_declared(kind):
    ranges = _ranges_of(kind)
    assert not ranges or hasattr(kind, "__post_init__")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_whether_it_continues(command):
    assert options_of(command).continues in (True, False)


@dataclasses.dataclass
class Numbers:
    count: Annotated[int, Range(1, 9)] | None = 1
    share: Annotated[float, Range(0, 1, (0,), "a share in (0, 1]")] = 0.5
    pair: tuple[Annotated[float, Range(0, 2, (0,))], ...] = (1, 2)
    named: dict[str, Annotated[int, Range(1, 9)]] | None = None
    word: Annotated[int, Range(1, 9)] | str = "auto"
    free: Any = 1e99


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"count": 10}, "count: expected a number of at most 9, found 10"),
        ({"count": 10**5000}, "count: expected .*, found an integer of about"),
        ({"share": 0}, r"share: expected a share in \(0, 1\], found 0"),
        ({"share": math.nan}, "share: .*found nan"),
        ({"share": -math.inf}, "share: .*found -inf"),
        ({"pair": (1, 0)}, "pair: expected more than 0, found 0"),
        ({"pair": (math.nan, 1)}, "pair: .*found nan"),
        ({"named": {"one": 3, "two": 0}}, "named: expected at least 1, found 0"),
        ({"word": 99}, "word: expected a number of at most 9, found 99"),
    ],
)
def test_a_number_out_of_its_range_is_refused(values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check_ranges(Numbers(**values))


@pytest.mark.parametrize("values", [{}, {"count": None}, {"count": 9}, {"share": 1}, {"pair": ()}])
def test_numbers_in_their_ranges_pass(values):
    check_ranges(Numbers(**values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 10**9}, "image_size: expected a number of at most 16384"),
        ({"batch_size": 10**12}, "batch_size: expected a number of at most"),
        ({"learning_rate": math.nan}, "learning_rate: .*nan"),
        ({"betas": (0.9, 1.0)}, "betas: expected 0 to 1, and less than 1"),
        ({"crop_area": (-1, 1)}, "crop_area: expected a share"),
        ({"scene_objects": (3, 1)}, "scene_objects: expected the smaller number first"),
        ({"stages": (Stage(math.nan),)}, "stage 1: share: .*nan"),
    ],
)
def test_a_recipe_made_in_python_is_checked(change, message):
    with pytest.raises(InputError, match=message):
        Recipe(model="demo", steps=5, **change)
