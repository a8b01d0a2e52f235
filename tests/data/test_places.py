"""Images of tar files, lists, patterns and URLs: read in place, in the order of their folder."""

import functools
import http.server
import io
import os
import pickle
import re
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.data import is_url, open_images, plain_place, read_image
from crate_interp.data.image_files import ImageReadError
from crate_interp.data.places import find_images
from crate_interp.data.tars import tar_members
from crate_interp.errors import InputError

NAMES = ("a.png", "b/1.png", "b/2.png", "c.JPG")


def png(value, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


CONTENT = {name: png(10 * number) for number, name in enumerate(NAMES, start=1)}


@pytest.fixture
def folder(tmp_path):
    """Four images, two of them in a folder, and what lies beside images."""
    for name, content in {**CONTENT, "notes.md": b"?", ".hidden.png": b"?"}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "photos"


def write_tar(path, files, **changes):
    """Write a tar file; a change makes another kind of member of a name."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in changes.get(name, {}).items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def red(records):
    """Names and colours, in order; the numbers follow from the order."""
    assert [record.image_id for record in records] == list(range(1, len(records) + 1))
    return {record.file_name: int(record.read()[0, 0, 0]) for record in records}


@pytest.fixture
def expected(folder):
    found = red(open_images([folder], recursive=True).records)
    assert list(found) == sorted(NAMES, key=lambda name: name.split("/"))
    return found


def test_a_tar_file_gives_the_images_of_the_folder_that_was_packed(folder, tmp_path, expected):
    files = {f"./{name}" if name == "a.png" else name: CONTENT[name] for name in expected}
    tar = write_tar(tmp_path / "packed.tar", {**files, "a.cls": b"3", "__meta__.json": b"{}"})
    images = open_images([tar])
    assert red(images.records) == expected
    assert list(red(images.records)) == list(expected)
    assert images.name == "packed.tar"
    assert str(images.records[1].path) == f"{tar}: b/1.png"
    assert pickle.loads(pickle.dumps(images.records)) == images.records


def test_shards_are_named_by_braces_and_patterns(tmp_path, caplog):
    for number in range(3):
        write_tar(tmp_path / f"s-{number:04}.tar", {f"{number}/x.png": png(40 * number)})
    by_braces = red(open_images([f"{tmp_path}/s-{{0000..0002}}.tar"]).records)
    assert by_braces == {"0/x.png": 0, "1/x.png": 40, "2/x.png": 80}
    assert red(open_images([tmp_path / "s-*.tar"]).records) == by_braces
    assert red(open_images([tmp_path / "s-000[12].tar"]).records) == {"1/x.png": 40, "2/x.png": 80}
    (tmp_path / "s-{0000..0002}.tar").write_bytes((tmp_path / "s-0001.tar").read_bytes())
    (only,) = open_images([f"{tmp_path}/s-{{0000..0002}}.tar"]).records  # a file of this name
    assert only.file_name == "1/x.png"
    assert not caplog.messages


def test_names_that_shards_share_have_the_shard_before_them(tmp_path):
    for number in range(2):
        write_tar(tmp_path / f"s-{number}.tar", {"x.png": png(40 * number)})
    found = red(open_images([tmp_path / "s-0.tar", tmp_path / "s-1.tar"]).records)
    assert found == {"s-0.tar/x.png": 0, "s-1.tar/x.png": 40}
    assert len(open_images([tmp_path / "s-0.tar"] * 2).records) == 1


def test_what_is_no_plain_file_in_a_tar_is_left_out_and_told_of(tmp_path, caplog):
    files = dict.fromkeys(("link.png", "hard.png", "device.png", "pipe.png"), b"")
    files |= dict.fromkeys(("/etc/x.png", "../x.png", "a/../../x.png", "x.heic"), png(1))
    changes = {
        "link.png": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        "hard.png": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        "device.png": {"type": tarfile.CHRTYPE},
        "pipe.png": {"type": tarfile.FIFOTYPE},
    }
    tar = write_tar(tmp_path / "hostile.tar", {**files, "good.png": png(7)}, **changes)
    assert red(open_images([tar]).records) == {"good.png": 7}
    (told,) = caplog.messages
    assert told.startswith(f"{tar}: 8 entries left out: 3 names that lead")
    assert "2 links" in told
    assert "2 devices" in told


def changed(path, **changes):
    """Write a tar file with one member whose header says something else."""
    member = tarfile.TarInfo("x.png")
    member.size = changes.pop("size", 4)
    for key, value in changes.items():
        setattr(member, key, value)
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)


LONG = tarfile.TarInfo("long")  # a header that says the name of the next header
LONG.type, LONG.size = tarfile.GNUTYPE_LONGNAME, 2
LONG = LONG.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a readable tar file, uncompressed: empty file"),
        (lambda path: path.write_bytes(b"no tar" * 500), "not a readable tar file, uncompressed"),
        (lambda path: write_tar(path, {}), "expected image files .* in this tar file, found none"),
        (lambda path: write_tar(path, {"x.txt": b"?"}), "in this tar file, found none"),
        (lambda path: changed(path, size=10**12), "'x.png': expected 1000000000000 bytes, found"),
        (lambda path: changed(path, size=-512), "'x.png': expected -512 bytes, found"),
        (
            lambda path: path.write_bytes(
                write_tar(path, {"x.png": png(1), "y.png": png(2)}).read_bytes()[:1600]
            ),
            "'y.png': expected .* bytes, found",
        ),
        (lambda path: path.write_bytes(3000 * LONG), "not a readable tar file, uncompressed"),
    ],
)
def test_a_damaged_or_empty_tar_file_is_named(tmp_path, write, message):
    write(tmp_path / "bad.tar")
    with pytest.raises(InputError, match=message) as raised:
        find_images([tmp_path / "bad.tar"])
    assert str(raised.value).startswith(f"{tmp_path / 'bad.tar'}: ")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_says(tmp_path, kind):
    names = ["a.png", "n" * 100, "d" * 90 + "/" + "n" * 60, "ä.png", "folder/", "x y.png"]
    with tarfile.open(tmp_path / "s.tar", "w", format=kind) as tar:
        for size, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mtime = size, 8**7 - 1, 1.5
            tar.addfile(member, io.BytesIO(b"?" * size))
    with tarfile.open(tmp_path / "s.tar") as tar:
        expected = [(m.name, m.offset_data, m.size, m.type) for m in tar.getmembers()]
    found = [(m.name, m.offset_data, m.size, m.type) for m in tar_members(str(tmp_path / "s.tar"))]
    assert found == expected


@pytest.mark.parametrize("kept", [None, 1400])
def test_a_damaged_header_between_members_is_named(tmp_path, kept):
    tar = write_tar(tmp_path / "s.tar", {"x.png": png(1), "y.png": png(2)})
    content = bytearray(tar.read_bytes())
    content[content.index(b"y.png")] = ord("z")
    tar.write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"s\.tar: damaged header at byte 1024"):
        find_images([tar])


def test_a_member_that_occurs_twice_is_refused(tmp_path):
    tar = write_tar(tmp_path / "s.tar", {"x.png": b"", "./x.png": b""})
    with pytest.raises(InputError, match=r"s\.tar: 'x\.png': occurs twice"):
        find_images([tar])


def test_a_member_that_cannot_be_read_is_named(tmp_path):
    tar = write_tar(tmp_path / "s.tar", {"x.png": b"no picture", "y.png": b"", "z.png": png(1)})
    x, y, z = open_images([tar]).records
    for record, message in ((x, "not an image"), (y, "cannot be read: ")):
        with pytest.raises(ImageReadError, match=re.escape(f"{record.path}: ") + ".*" + message):
            record.read()
    with tar.open("r+b") as file:
        file.truncate(z.path.offset + 3)  # after it was opened
    with pytest.raises(ImageReadError, match=r"z\.png: cannot be read: expected \d+ bytes from"):
        z.read()


def test_a_list_names_files_below_its_folder_and_elsewhere(folder, tmp_path, expected):
    other = tmp_path / "other.png"
    other.write_bytes(png(200))
    listing = folder / "list.txt"
    listing.write_bytes(b"c.JPG\r\n\nb/1.png\n%s\n./a.png\nc.JPG" % os.fsencode(other))
    found = red(open_images([listing]).records)
    assert found == {"c.JPG": expected["c.JPG"], "b/1.png": 20, "other.png": 200, "a.png": 10}
    assert list(found) == ["c.JPG", "b/1.png", "other.png", "a.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"missing.png", "list.txt, line 3: 'missing.png': no such file"),
        (b"b", "list.txt, line 3: 'b': expected an image file, found a folder"),
        (b"a\0.png", "line 3: .*: cannot be read: "),
        (b"x" * 5000, "line 3: 'xxx.*: cannot be read: File name too long"),
        (b"\xff.png", "line 3: .*: no such file"),
        (b"nothing://x/a.png", "a.png: .*Protocol not known"),
    ],
)
def test_a_bad_line_of_a_list_is_named_with_its_number(folder, line, message):
    (folder / "list.txt").write_bytes(b"a.png\n\n" + line + b"\nb/1.png\n")
    with pytest.raises(InputError, match=message) as raised:
        open_images([folder / "list.txt"]).records[1].read()
    assert len(str(raised.value)) <= 500


def test_an_empty_list_is_refused(folder):
    (folder / "list.txt").write_bytes(b"\n \n")
    with pytest.raises(InputError, match="expected the path of an image on each line, found none"):
        find_images([folder / "list.txt"])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s-{0..2.tar", "braces that do not pair"),
        ("s-{0..99999999}.tar", "expected 1000000 names at most"),
        ("s-{0..999999}{0..999999}.tar", "expected 1000000 names at most"),
        ("s-*.tar", "expected files of such names, found none"),
        ("s-{0..1}.tar", "s-0.tar: no such file or folder"),
        ("nothing://bucket/a", "Protocol not known"),
        ("memory://nothing-here/", "expected image files"),
        ("memory://nothing-here/x.tar", "x.tar: cannot be read: no such file"),
        ("memory://nothing-here/x.txt", "x.txt: cannot be read: no such file"),
    ],
)
def test_places_that_are_none_are_refused_by_name(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        find_images([place])


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and parts of files as HTTP asks for them."""

    ranges = True

    def log_message(self, *_):
        pass

    def send_head(self):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not self.ranges or not path.is_file():
            return super().send_head()
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture
def served(folder):
    """URL of the folder on a server of this machine."""
    pytest.importorskip("aiohttp", reason="reads HTTP")
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def in_memory():
    """URL of the files in fsspec's memory."""
    fsspec = pytest.importorskip("fsspec", reason="reads URLs")
    fs = fsspec.filesystem("memory")
    for name, content in CONTENT.items():
        fs.pipe_file(f"/bucket/photos/{name}", content)
    yield "memory://bucket/photos"
    fs.rm("/bucket", recursive=True)


def put(folder, name, content):
    """Put a file where a URL leads."""
    import fsspec

    if isinstance(folder, str):
        fsspec.filesystem("memory").pipe_file(f"/bucket/photos/{name}", content)
    else:
        (folder / name).write_bytes(content)


@pytest.fixture(params=["memory", "local", "http"])
def place(request, folder):
    """URL of the folder, and what to put files into it with."""
    pytest.importorskip("fsspec", reason="reads URLs")
    if request.param == "memory":
        url = request.getfixturevalue("in_memory")
        return url, functools.partial(put, url)
    if request.param == "local":
        return f"file://{folder}", functools.partial(put, folder)
    return request.getfixturevalue("served"), functools.partial(put, folder)


def test_a_folder_behind_a_url_has_the_names_order_and_numbers_of_one_here(place, expected, caplog):
    url, _ = place
    found = red(open_images([f"{url}/"], recursive=True).records)
    assert list(found.items()) == list(expected.items())
    assert not caplog.messages
    direct = red(open_images([f"{url}/"]).records)
    assert list(direct) == ["a.png", "c.JPG"]
    assert "1 folder (--recursive)" in caplog.text


def test_tar_files_lists_and_images_are_read_behind_urls(place, tmp_path, expected):
    url, put_file = place
    tar = write_tar(tmp_path / "s.tar", {name: CONTENT[name] for name in expected})
    for number in range(2):
        put_file(f"s-{number}.tar", tar.read_bytes())
    assert red(open_images([f"{url}/s-0.tar"]).records) == expected
    assert len(open_images([f"{url}/s-{{0..1}}.tar"]).records) == 2 * len(expected)
    put_file("list.txt", "\n".join(["b/2.png", f"{url}/a.png"]).encode())
    assert red(open_images([f"{url}/list.txt"]).records) == {"b/2.png": 30, "a.png": 10}
    images = open_images([f"{url}/c.JPG"])
    assert red(images.records) == {"c.JPG": expected["c.JPG"]}
    assert images.name == "c.JPG"
    for own in (images.records[0].path, f"{url}/c.JPG"):
        np.testing.assert_array_equal(read_image(own), images.records[0].read())


def test_what_cannot_be_read_behind_a_url_is_named(place):
    url, put_file = place
    put_file("bad.png", b"no picture")
    put_file("empty.png", b"")
    for name, message in (
        ("missing.png", "no such file"),
        ("bad.png", "not an image"),
        ("empty.png", "the file is empty"),
    ):
        (record,) = open_images([f"{url}/{name}"]).records
        expected = f"^{re.escape(f'{url}/{name}')}: cannot be read: {message}"
        with pytest.raises(ImageReadError, match=expected):
            record.read()


@pytest.mark.parametrize("line", ["/etc/passwd", "../x.png", "file:///etc/passwd", "a/../../x.png"])
def test_a_list_behind_a_url_leads_to_no_file_of_this_machine(in_memory, line):
    put(in_memory, "list.txt", f"a.png\n{line}\n".encode())
    with pytest.raises(InputError, match=r"list\.txt, line 2: '.*': expected a "):
        open_images([f"{in_memory}/list.txt"])


def test_a_pattern_of_urls_stands_for_what_is_there(in_memory):
    found = red(open_images([f"{in_memory}/*.png", f"{in_memory}/b/[2-9].png"]).records)
    assert found == {"a.png": 10, "2.png": 30}


def test_a_server_without_ranges_has_no_tar_files(served, folder, monkeypatch):
    write_tar(folder / "s.tar", {"x.png": png(1)})
    (record,) = open_images([f"{served}/s.tar"]).records
    monkeypatch.setattr(_Handler, "ranges", False)
    with pytest.raises(ImageReadError, match=r"s\.tar: x\.png: cannot be read: expected \d+ bytes"):
        record.read()


def test_urls_and_annotations_agree_by_the_ends_of_names(in_memory, tmp_path):
    annotations = tmp_path / "truth.json"
    annotations.write_text(
        '{"images": [{"id": 5, "file_name": "b/1.png", "height": 6, "width": 8}, '
        '{"id": 3, "file_name": "b/2.png", "height": 6, "width": 8}], '
        '"annotations": [], "categories": []}'
    )
    images = open_images([f"{in_memory}/b/"], annotations)
    assert [(record.image_id, record.file_name) for record in images.records] == [
        (5, "b/1.png"),
        (3, "b/2.png"),
    ]


def test_images_here_and_elsewhere_are_one_set(folder, in_memory):
    found = red(open_images([folder / "a.png", f"{in_memory}/a.png"]).records)
    assert list(found.values()) == [10, 10]
    assert all(name.endswith("photos/a.png") for name in found)


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"pip install 'crate-interp\[remote\]'"):
        find_images(["s3://bucket/photos/"])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("photos/", "photos"),
        ("./a//b.tar", "a/b.tar"),
        (Path("photos"), "photos"),
        ("s3://bucket//photos/", "s3://bucket//photos/"),
    ],
)
def test_a_place_is_written_in_one_way(place, expected):
    assert plain_place(place) == expected


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://bucket", True),
        ("HTTP://host/x", True),
        ("gs+x://y", True),
        ("c://folder", False),
        ("photos/s3://x", False),
        ("s3:/bucket", False),
        ("", False),
    ],
)
def test_a_url_is_told_from_a_path(place, expected):
    assert is_url(place) == expected
