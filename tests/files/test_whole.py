"""Files that appear whole or not at all."""

import pytest

from crate_interp.files import checksum_of, remove_leftovers, write_whole


def test_write_whole_replaces_the_file_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_whole(path, "w") as file:
        file.write("new\r\n")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == b"new\r\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_write_whole_leaves_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail_half_way():
        with write_whole(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_remove_leftovers_removes_only_what_a_killed_process_left(tmp_path):
    (tmp_path / ".step.pt.123.partial").write_bytes(b"half")
    (tmp_path / "step.pt").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")
    assert [entry.name for entry in tmp_path.iterdir()] == ["step.pt"]


def test_checksum_of_is_sha256():
    assert checksum_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
