"""Run folders: what their journal and settings have taken over is theirs, or it is done again."""

import json

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.files import checksum_of
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.run_folder import open_run_folder


class Entry(JournalEntry):
    score: float


def entry_of(image_id, **changes):
    known = {"image_id": image_id, "file_name": f"{image_id}.png", "seconds": {"read": 0.5}}
    return {**known, "score": 0.25, **changes}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    with open_run_folder(path, {"tau": 0.15}, Entry) as run:
        for image_id in (1, 2, 3):
            run.append(entry_of(image_id))
    return path


def finished(path):
    with open_run_folder(path, {"tau": 0.15}, Entry) as run:
        return run.finished()


def with_checksum(entry):
    text = json.dumps(entry).encode()
    return b'{"sha256": "%s", "entry": %s}' % (checksum_of(text).encode(), text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line.replace(b"0.25", b"0.75"), "expected an entry of checksum "),
        (lambda line: line.replace(b"0.25", b"0.250"), "expected an entry of checksum "),
        (lambda line: line[:-9], "not a JSON file"),
        (lambda line: b"", "not a JSON file"),
        (lambda line: b"\xff\x00" + line, "not a JSON file"),
        (lambda line: b"[]", "expected object, found array"),
        (lambda line: b"{}", "sha256: expected a value, found no such key"),
        (lambda line: b'{"entry": ' + b"[" * 100_000, "not a JSON file"),
        (
            lambda line: json.dumps(entry_of(2)).encode(),
            "sha256: expected a value, found no such key",
        ),
        (lambda line: b'{"sha256": 3, "entry": {}}', "sha256: expected str, found int"),
        (lambda line: with_checksum(entry_of("2")), "image_id: expected int, found str"),
        (lambda line: with_checksum(entry_of(2, score="x")), "score: expected float, found str"),
        (lambda line: with_checksum({"image_id": 2}), "expected a value, found no such key"),
        (lambda line: with_checksum(None), "expected object, found null"),
    ],
)
def test_a_damaged_line_is_told_of_and_done_again(folder, caplog, damage, message):
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([lines[0], damage(lines[1]), lines[2], b""]))
    assert finished(folder) == {1: entry_of(1), 3: entry_of(3)}
    (told,) = caplog.messages
    assert told.startswith(f"{journal}, line 2: ")
    assert message in told
    assert told.endswith("; the image is done again")
    assert "\n" not in told
    assert len(told) < 530
    caplog.clear()
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        run.finished()
        run.append(entry_of(2))
        assert set(run.finished()) == {1, 2, 3}
    assert not caplog.messages
    assert len(journal.read_bytes().splitlines()) == 3


def test_a_line_that_was_cut_off_is_dropped_without_a_word(folder, caplog):
    journal = folder / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-7])
    assert set(finished(folder)) == {1, 2}
    assert journal.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert not caplog.messages


def test_a_journal_of_an_earlier_version_is_done_again_in_few_words(folder, caplog):
    journal = folder / "journal.jsonl"
    old = [json.dumps(entry_of(number)) + "\n" for number in range(1000)]
    journal.write_text("".join(old))
    assert finished(folder) == {}
    assert len(caplog.messages) == 6
    assert "995 more lines are damaged, or of an earlier version" in caplog.messages[-1]
    assert journal.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "settings.json: not a JSON file"),
        (b"", "settings.json: not a JSON file"),
        (b'{"tau": ', "settings.json: not a JSON file"),
        (b"[1]", "settings.json: expected object, found array"),
        (b'{"tau": NaN}', "settings.json: not a JSON file"),
        (b"{" + b'"a": {' * 100_000, "settings.json: not a JSON file"),
        (b'{"tau": {"b": [1, 2]}}', r"tau was {'b': \[1, 2\]}, now 0.15"),
        (b'{"tau": "%s"}' % (b"x" * 10_000), "tau was 'xxx.*now 0.15.*choose another --output"),
        (b'{"%s\\n": 1, "tau": 0.15}' % (b"x" * 10_000), "now None.*choose another --output"),
    ],
)
def test_settings_that_are_none_are_named(folder, content, message):
    (folder / "settings.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        finished(folder)
    assert str(folder) in str(raised.value)
    assert len(str(raised.value)) <= 500
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("place", [".", "images"])
def test_what_a_killed_writer_left_is_cleared_away(folder, place):
    left = folder / place / ".results.json.4711.partial"
    left.parent.mkdir(exist_ok=True)
    left.write_text("half")
    with open_run_folder(folder, {"tau": 0.15}, Entry):
        assert not left.exists()


def test_a_journal_that_is_no_file_is_named(folder):
    (folder / "journal.jsonl").unlink()
    (folder / "journal.jsonl").mkdir()
    with pytest.raises(InputError, match=r"journal\.jsonl: cannot be read: Is a directory"):
        finished(folder)


def test_another_journal_of_a_folder_has_arrays_alone_and_can_be_removed(folder):
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        other = run.journal("train")
        assert other.finished() == {}
        known = {name: value for name, value in entry_of(1).items() if name != "score"}
        other.append({**known, "features": np.arange(3)})
        np.testing.assert_array_equal(other.finished()[1]["features"], np.arange(3))
        for _ in range(2):
            other.remove_journal()
        assert other.finished() == {}
        assert run.journal("journal").finished()[1]["score"] == 0.25
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "settings.json", "journal.jsonl"}
