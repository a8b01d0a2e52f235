"""Arrays of .npz files: numpy writes them, and each kind of damage is refused unallocated."""

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.files import array_sizes, read_arrays

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by/column": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 4), np.int8),
    "text": np.array("about"),
    "flags": np.array([True, False]),
    "bfloat16": np.zeros(3, "V2"),
}


def _zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _npy(header, data=b"", version=1):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text + data


def _header_of(descr, shape, order=False):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_arrays_reads_what_numpy_writes(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_arrays(tmp_path / "a.npz", 10**6)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert array_sizes(tmp_path / "a.npz")["a"] == 128 + 24


def test_read_arrays_reads_only_what_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", small=np.zeros(3), large=np.zeros(10**5))
    assert list(read_arrays(tmp_path / "a.npz", 1000, ["small"])) == ["small"]
    with pytest.raises(InputError, match=r"a.npz: expected an array 'other'"):
        read_arrays(tmp_path / "a.npz", 1000, ["other"])
    with pytest.raises(InputError, match="expected at most 1000 bytes of arrays, found 80"):
        read_arrays(tmp_path / "a.npz", 1000)


NESTED = "(" * 3000 + ")" * 3000
WRONG = {
    "no numpy": b"hello",
    "empty": b"",
    "version": _npy(_header_of("'<f4'", "()"), b"1234", version=9),
    "objects": _npy(_header_of("'|O'", "(1,)"), b"12345678"),
    "bytes": _npy(_header_of("'|S4'", "(1,)"), b"1234"),
    "fields": _npy(_header_of("[('a', '<f4')]", "(1,)"), b"1234"),
    "no type": _npy(_header_of("'<q9'", "(1,)"), b"1234"),
    "no width": _npy(_header_of("'<U0'", "(1,)")),
    "not a number": _npy(_header_of("'<f4'", "('a',)"), b"1234"),
    "huge": _npy(_header_of("'<f4'", "(1000000, 1000000)"), b"1234"),
    "beyond": _npy(_header_of("'<f4'", f"({10**18}, {10**18})"), b"1234"),
    "too short": _npy(_header_of("'<f4'", "(2,)"), b"1234"),
    "too long": _npy(_header_of("'<f4'", "(2,)"), b"1234" * 3),
    "code": _npy("__import__('os').system('true')", b"1234"),
    "nested": b"\x93NUMPY\x01\x00" + len(NESTED).to_bytes(2, "little") + NESTED.encode(),
}


@pytest.mark.parametrize("name", WRONG)
def test_read_arrays_refuses_wrong_arrays(tmp_path, name):
    path = _zip_of(tmp_path / "a.npz", {"right.npy": _saved(np.zeros(2)), "w.npy": WRONG[name]})
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a.npz: 'w'") as caught:
        read_arrays(path, 10**7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) <= 500
    assert peak < 10**7


def _saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_read_arrays_refuses_zeros_that_unpack_beyond_the_limit(tmp_path):
    path = _zip_of(tmp_path / "a.npz", {"a.npy": _saved(np.zeros(10**6))})
    assert path.stat().st_size < 10**5
    with pytest.raises(InputError, match="expected at most 1000000 bytes"):
        read_arrays(path, 10**6)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", None])
def test_read_arrays_refuses_other_files(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    for read in (array_sizes, lambda path: read_arrays(path, 10)):
        with pytest.raises(InputError, match=r"a.npz: "):
            read(path)


def test_read_arrays_survives_every_flipped_byte(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.arange(20), b=np.array("text"))
    whole = path.read_bytes()
    expected = np.arange(20)
    for position in range(len(whole)):
        for flip in (1, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with contextlib.suppress(InputError):
                found = read_arrays(path, 10**5)
                # Still read: the byte says nothing, as in a date, or is a letter of a name.
                np.testing.assert_array_equal(found.get("a", expected), expected)
