"""Numbers in one text."""

import pytest

from crate_interp import InputError
from crate_interp.options.numbers import numbers_of, pixel_of


def test_numbers_are_read_once_each_in_their_order():
    assert numbers_of("heads", "3, 0,3", "auto", "0,3") == [3, 0]
    assert numbers_of("heads", "auto", "auto", "0,3") is None
    assert pixel_of("patch", "120,64") == (120, 64)
    assert pixel_of("patch", "7,7") == (7, 7)


@pytest.mark.parametrize("text", ["", "all", "1,,2", "-1", "1.5", "1e3", "1" * 10])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="heads: expected auto or numbers as 0,3, found"):
        numbers_of("heads", text, "auto", "0,3")


@pytest.mark.parametrize("text", ["", "3", "1,2,3", "-1,2", "y,x"])
def test_what_is_no_pixel_is_refused(text):
    with pytest.raises(InputError, match="patch: expected Y,X such as 120,64, found"):
        pixel_of("patch", text)
