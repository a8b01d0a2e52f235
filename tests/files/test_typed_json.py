"""JSON of a declared type: what fits, and the place of what does not."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as, parse_json_as, read_json_as


class Entry(msgspec.Struct):
    id: Annotated[int, msgspec.Meta(ge=-(2**63))]
    name: str = ""


def test_read_json_as_gives_the_type(tmp_path):
    path = tmp_path / "entries.json"
    path.write_text('[{"id": 1, "name": "a", "beside": null}, {"id": 2}]')
    assert read_json_as(path, list[Entry]) == [Entry(1, "a"), Entry(2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": "1"}]', r"\[0\].id: expected int, found str"),
        (b"{}", "expected array, found object"),
        (b"", "not a JSON file"),
        (b'[{"id": NaN}]', "not a JSON file"),
        (b'[{"id": 1, "name": "\\ud800"}]', "not a JSON file"),
        (b'[{"id": 1, "name": "\xff"}]', r"entries.json"),
        (b"[" * 10**6, r"\[0\]: expected object, found array"),
        (b'[{"beside": ' + b"[" * 10**6, "not a JSON file"),
        (b'[{"id": ' + b"1" * 10**4 + b"}]", "entries.json"),
    ],
)
def test_read_json_as_names_file_and_place(tmp_path, content, message):
    path = tmp_path / "entries.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json_as(path, list[Entry])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "", "a\0b", "n" * 5000])
def test_read_json_as_refuses_what_is_no_file(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_json_as(f"{tmp_path}/{name}", dict)
    assert len(str(caught.value)) <= 500


def test_checked_as_is_strict():
    assert checked_as({"id": 3}, Entry, "settings") == Entry(3)
    with pytest.raises(InputError, match=r"settings: id: expected int, found float"):
        checked_as({"id": 3.5}, Entry, "settings")
    with pytest.raises(InputError, match=r"line: .*id"):
        parse_json_as("{}", Entry, "line")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("many", int, "expected a whole number, found 'many'"),
        (True, int, "expected a whole number, found True"),
        (10**400, float | None, "expected a number or null, found an integer of about"),
        ("red", Literal["auto", "none"] | float, "expected auto, none or a number, found 'red'"),
        ([1, 2, 3], tuple[int, int], "expected a list of 2, each a whole number, found"),
        (None, dict[str, Any], "expected a mapping, found None"),
        ("a\0b", Path, "expected a path, found"),
        ("\ud800", Path, "expected a path, found"),
        (7, Path | None, "expected a path or null, found 7"),
    ],
)
def test_checked_as_says_in_words_what_it_expects(value, kind, message):
    with pytest.raises(InputError, match=f"^--option: {message}"):
        checked_as(value, kind, "--option")


def test_checked_as_makes_paths():
    assert checked_as(["a", "b\udcff"], list[Path], "--option") == [Path("a"), Path("b\udcff")]
    assert checked_as(None, Path | None, "--option") is None


def test_input_errors_are_one_printable_line_of_500_characters():
    message = str(InputError(f"file.json: found\n  {'x' * 9000}\n\ud800\a; do this"))
    assert len(message) == 500
    assert message.startswith("file.json: found xxx")
    assert message.endswith(r"x \ud800\x07; do this")
    assert message.isprintable()


def test_shorten_is_one_short_line():
    assert shorten("short") == "'short'"
    for value in (10**5000, "\ud800\n" * 300, [[[[[[1]]]]]], {"a": 10**9999}, b"\0" * 999, None):
        assert len(shorten(value)) <= 60
        assert shorten(value).isprintable()


def test_read_json_as_takes_a_byte_order_mark_and_refuses_a_pipe(tmp_path):
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json_as(tmp_path / "marked.json", list[int]) == [1]
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="found a device or a pipe"):
            read_json_as(path, list[int])


@pytest.mark.parametrize("name", ["n" * 256, "a/" * 2048 + "b", "a\0b"])
def test_checked_as_refuses_paths_that_no_file_has(name):
    with pytest.raises(InputError, match=r"^--weights: expected a path, found '"):
        checked_as(name, Path, "--weights")
    assert checked_as("a/" * 100, Path, "--weights") == Path("a/" * 100)
