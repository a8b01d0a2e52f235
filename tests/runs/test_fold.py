"""Sums over images: what their file has taken over is theirs, or it is done again."""

import errno
import os
import shutil
from contextlib import closing

import numpy as np
import pytest

from crate_interp import InputError
from crate_interp.runs import fold
from crate_interp.runs.fold import Fold


class Sums:
    """Sums of values whose order shows in the last bits, and how often an image was added."""

    def __init__(self, size=3):
        self.sums = np.zeros(size)
        self.counts = np.zeros((), np.int64)

    def add(self, image, values):
        if image < 0:
            raise InputError("expected an image, found none")
        self.sums += values
        self.counts += 1

    def state(self):
        return {"sums": self.sums, "counts": self.counts}

    def restore(self, state):
        if state["sums"].shape != self.sums.shape:
            raise InputError(f"sums: expected {self.sums.shape}, found {state['sums'].shape}")
        self.sums, self.counts = state["sums"], state["counts"]


VALUES = np.random.default_rng(0).random((7, 3)) * 10.0 ** np.arange(7)[::-1, None]


def add_up(path, numbers=range(7)):
    """Add the images that are not in the file yet."""
    sums = Sums()
    with closing(Fold(path, sums)) as folded:
        done = list(folded.image_ids)
        for number in numbers:
            if number not in done:
                folded.add(number, {"values": VALUES[number]})
    return sums, done


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sums.npz"


@pytest.fixture
def expected(tmp_path):
    return add_up(tmp_path / "undisturbed.npz")[0].sums.tobytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_what_was_added_before_an_end_of_any_kind_is_there(path, expected, error):
    def images():
        yield from range(4)
        raise error

    with pytest.raises(error):
        add_up(path, images())
    sums, done = add_up(path)
    assert done == [0, 1, 2, 3]
    assert sums.sums.tobytes() == expected
    assert sums.counts == 7


def test_a_killed_process_loses_what_came_after_the_last_writing(path, expected, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(fold.time, "monotonic", lambda: seconds[0])
    folded = Fold(path, Sums())
    for number in range(5):
        seconds[0] += 12  # so that the third image comes after half a minute
        folded.add(number, {"values": VALUES[number]})
    sums, done = add_up(path)
    assert done == [0, 1, 2]
    assert sums.sums.tobytes() == expected


def test_slow_writing_is_done_less_often(path, monkeypatch):
    seconds, written = [0.0], []

    def save(file, **arrays):
        seconds[0] += 10
        written.append(len(arrays["image_ids"]))

    monkeypatch.setattr(fold.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(fold.np, "savez", save)
    folded = Fold(path, Sums())
    for number in range(50):
        seconds[0] += 31
        folded.add(number, {"values": 1})
    assert written == [1, 8, 15, 22, 29, 36, 43, 50]  # 200 seconds apart, not 30


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_half_an_image_is_not_written(path, expected, monkeypatch, error):
    add_up(path, range(2))
    add = Sums.add

    def stop(sums, image, values):
        sums.sums[0] += values[0]
        if image == 3:
            raise error
        sums.sums[0] -= values[0]
        add(sums, image, values)

    with monkeypatch.context() as patch:
        patch.setattr(Sums, "add", stop)
        with pytest.raises(error):
            add_up(path)
    sums, done = add_up(path)
    assert done == [0, 1]
    assert sums.sums.tobytes() == expected


def test_no_image_leaves_no_file(path):
    assert add_up(path, ())[1] == []
    assert not path.exists()


def flipped(content):
    """Another number among the sums, with a right CRC."""
    at = content.index(VALUES[:4].sum(axis=0).tobytes()[:6])
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def another_sum(path):
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "counts": np.array(5)})


def without_a_checksum(path):
    with np.load(path) as arrays:
        np.savez(path, **{name: arrays[name] for name in arrays if name != "sha256"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "damaged, its images are done again: "),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "not an .npz file, or damaged"),
        (lambda path: path.write_bytes(flipped(path.read_bytes())), "is damaged: Bad CRC"),
        (another_sum, "expected checksum "),
        (without_a_checksum, "expected checksum "),
        (lambda path: write_other_sums(path), r"sums: expected (3,), found (2,)"),
    ],
)
def test_a_damaged_file_is_told_of_and_its_images_are_done_again(
    path, expected, damage, message, caplog
):
    add_up(path, range(4))
    damage(path)
    sums, done = add_up(path)
    assert done == []
    assert sums.sums.tobytes() == expected
    assert message in caplog.text
    assert f"{path}: damaged" in caplog.text
    assert add_up(path)[1] == list(range(7))


def write_other_sums(path):
    path.unlink()
    with closing(Fold(path, Sums(2))) as folded:
        folded.add(0, {"values": 1})


def test_a_full_disk_leaves_the_file_before_and_is_named(path, expected, monkeypatch):
    add_up(path, range(2))
    before = path.read_bytes()

    def full(file, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fold.np, "savez", full)
        with pytest.raises(InputError, match=r"sums\.npz: cannot be written: No space left"):
            add_up(path)
    assert path.read_bytes() == before
    assert add_up(path)[0].sums.tobytes() == expected


def test_sums_without_numbers_are_kept_too(path):
    empty = Sums(0)
    with closing(Fold(path, empty)) as folded:
        folded.add(4, {"values": 1})
    shutil.copy(path, path.with_name("copy.npz"))
    assert Fold(path.with_name("copy.npz"), Sums(0)).image_ids == [4]
