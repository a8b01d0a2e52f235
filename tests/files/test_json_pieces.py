"""JSON that is written piece by piece has the bytes of `json.dumps`."""

import io
import json

import pytest

from crate_interp.files import write_json_pieces

ITEMS = [{"a": [1, {"b": []}], "é\n": None}, [], {}, "a\nb", 0.1, [[]]]


def written(content):
    file = io.BytesIO()
    write_json_pieces(file, content)
    return file.getvalue().decode()


@pytest.mark.parametrize("items", [ITEMS, ITEMS[:1], []])
def test_a_list_is_written_as_a_whole_one(items):
    assert written(iter(items)) == json.dumps(items) + "\n"


@pytest.mark.parametrize("items", [ITEMS, ITEMS[:1], []])
def test_a_mapping_is_written_as_a_whole_one(items):
    whole = {"first": {"a": [1, 2], "b": {}}, "items": items, "list": items, "last": "é"}
    assert written({**whole, "items": iter(items)}) == json.dumps(whole, indent=1) + "\n"
    assert written({"items": iter(items)}) == json.dumps({"items": items}, indent=1) + "\n"


def test_nothing_is_an_empty_mapping():
    assert written({}) == json.dumps({}, indent=1) + "\n"
