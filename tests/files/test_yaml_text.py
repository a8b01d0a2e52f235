"""YAML of plain values, bounded; yaml.safe_load is the reference for what both read."""

import math
import time

import pytest
import yaml

from crate_interp.errors import InputError
from crate_interp.files import parse_yaml, read_yaml

PLAIN = """
a: [1, -2.5, 0x10, text, 'quoted: 1', "1", null, ~, true, False]
b: {c: 1.0e-3, d: .inf, e: "\\u00e9"}
f: |
  two
  lines
g:
- - 1
  - {}
- []
h: &anchor {i: 1}
j: *anchor
"""


def test_parse_yaml_reads_what_yaml_does():
    assert parse_yaml(PLAIN, "file") == yaml.safe_load(PLAIN)


def test_parse_yaml_reads_numbers_as_yaml_1_2_and_dates_as_texts():
    found = parse_yaml("[1e-3, 1_000, 0o10, 12:30, 2024-01-01, no, .nan]", "file")
    assert found[:-1] == [1e-3, 1000, 8, "12:30", "2024-01-01", "no"]
    assert math.isnan(found[-1])


def test_parse_yaml_copies_what_an_alias_stands_for():
    found = parse_yaml("a: &x [1]\nb: *x", "file")
    found["a"].append(2)
    assert found["b"] == [1]


def test_read_yaml_of_an_empty_file_is_none(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") is None


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        "!!timestamp x",
        "a: !!float x",
        "!!python/object/apply:os.system ['true']",
        "a: &a [*a]",
        "a: *unknown",
        BOMB,
        "a: &a 1\nb: [" + "*a, " * 100 + "]",
        "[" * 100,
        "{" * 100_000,
        "a: 1\na: 2",
        "? [a]\n: b",
        "1\n---\n2",
        "a: '\\",
        '"\\UFFFFFFFF"',
        '"\\ud800"',
        "%YAML 9" + "9" * 5000 + ".1\n--- a",
        "a: " + "1" * 5000,
        "\0",
        "x" * (1 << 19),
        "[" + "1," * 30_000 + "]",
    ],
)
def test_parse_yaml_refuses_in_one_line_and_at_once(text):
    started = time.process_time()
    with pytest.raises(InputError, match=r"^file: ") as caught:
        parse_yaml(text, "file")
    assert len(str(caught.value)) <= 500
    assert str(caught.value).isprintable()
    assert time.process_time() - started < 20


def test_read_yaml_refuses_other_encodings(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(InputError, match=r"latin.yaml: not YAML: not UTF-8 at byte 3"):
        read_yaml(tmp_path / "latin.yaml")
