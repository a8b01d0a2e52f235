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
            run.journal().append(entry_of(image_id))
    return path


def finished(path):
    with open_run_folder(path, {"tau": 0.15}, Entry) as run:
        return run.journal().finished()


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
        run.journal().finished()
        run.journal().append(entry_of(2))
        assert set(run.journal().finished()) == {1, 2, 3}
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
            other.remove()
        assert other.finished() == {}
        assert run.journal().finished()[1]["score"] == 0.25
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "settings.json", "journal.jsonl"}


def test_entries_are_those_of_a_plain_reading_in_any_order(folder):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    plain = {entry["image_id"]: entry for entry in (json.loads(line)["entry"] for line in lines)}
    done = finished(folder)
    assert done == plain
    assert (2 in done, 4 in done, len(done), list(done)) == (True, False, 3, [1, 2, 3])
    entries = done.of([3, 4, 1])
    assert list(entries) == [entries[0], entries[-1]] == [plain[3], plain[1]]
    assert list(entries[1:]) == [plain[1]]
    assert (len(entries), len(entries[:0]), list(done.of([]))) == (2, 0, [])
    with pytest.raises(KeyError):
        done[4]
    with pytest.raises(IndexError):
        entries[2]


def test_an_empty_journal_has_no_entries(folder):
    (folder / "journal.jsonl").write_bytes(b"")
    assert finished(folder) == {}


def test_what_was_found_finished_does_not_grow_with_the_journal(folder):
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        journal = run.journal()
        before = journal.finished()
        journal.append(entry_of(4))
        assert (set(before), set(journal.finished())) == ({1, 2, 3}, {1, 2, 3, 4})
        assert journal.finished()[4] == entry_of(4)


def test_a_line_is_read_once_until_it_is_asked_for(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        "crate_interp.runs.journal_file.checksum_of",
        lambda content: read.append(1) or checksum_of(content),
    )
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        journal = run.journal()
        entries = journal.finished().of([1, 2, 3])
        journal.append(entry_of(4))
        journal.finished()
        assert len(read) == 4  # of three lines, and of the one that was written
        assert [entry["image_id"] for entry in entries] == [1, 2, 3]


def test_a_line_that_is_damaged_later_is_named(folder):
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        entries = run.journal().finished().of([1, 2, 3])
        journal = folder / "journal.jsonl"
        journal.write_bytes(journal.read_bytes().replace(b"0.25", b"0.75"))
        with pytest.raises(InputError, match=r"journal\.jsonl, byte 0: expected an entry of check"):
            list(entries)


def test_many_damaged_lines_leave_the_others_as_they_were(folder):
    journal = folder / "journal.jsonl"
    one, two, three = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"\n{}\n" + one + b"x\n" + two + three + b"[]\n" + b"half")
    assert set(finished(folder)) == {1, 2, 3}
    assert journal.read_bytes() == one + two + three


def test_an_image_that_was_done_twice_has_its_last_entry(folder):
    with open_run_folder(folder, {"tau": 0.15}, Entry) as run:
        run.journal().append(entry_of(2, score=0.5))
    assert finished(folder)[2]["score"] == 0.5
    assert len(finished(folder)) == 3


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_that_is_refused_before_it_begins_keeps_no_folder_from_others(tmp_path, has_begun):
    def refused():
        with open_run_folder(tmp_path, {"tau": 9}, Entry) as run:
            if has_begun:
                run.journal().append(entry_of(1))
            raise InputError("tau: expected less than 1")

    with pytest.raises(InputError, match="tau"):
        refused()
    assert (tmp_path / "settings.json").exists() == has_begun
    if not has_begun:
        with open_run_folder(tmp_path, {"tau": 0.5}, Entry):
            pass
