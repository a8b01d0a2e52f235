"""Words of messages."""

import pytest

from crate_interp.errors import counted


@pytest.mark.parametrize(("number", "expected"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_things_are_counted_in_words(number, expected):
    assert counted(number, "image") == expected
