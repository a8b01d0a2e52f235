"""Downloads from a local server: whole, broken and continued, wrong, missing, and unpacking."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from crate_interp.data import download as module
from crate_interp.data.download import (
    DATASETS,
    Archive,
    DownloadError,
    dataset_folder,
    download,
    is_present,
)
from crate_interp.errors import InputError


@dataclass
class Server:
    """What a server offers, how it behaves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    break_after: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if not state.ranges:
                start = 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            self.wfile.write(body if state.break_after is None else body[: state.break_after])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        thread = Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


PICTURES = {
    f"small/{number}.jpg": np.random.default_rng(number).bytes(150_000) for number in range(3)
}
PATH = "/zips/small.zip"


def _offer(server: Server, monkeypatch, members: dict[str, bytes], **change) -> bytes:
    content = _zip(members)
    server.files[PATH] = content
    values = {
        "path": PATH[1:],
        "md5": hashlib.md5(content).hexdigest(),
        "size": len(content),
        "folder": "small",
        "pattern": "*.jpg",
        "count": 3,
    }
    monkeypatch.setitem(DATASETS, "small", (Archive(**{**values, **change}),))
    monkeypatch.setenv("CRATE_INTERP_COCO_URL", server.url + "/")
    return content


def _assert_complete(folder) -> None:
    assert {path.name for path in folder.iterdir()} == {"small"}
    assert {
        f"small/{path.name}": path.read_bytes() for path in (folder / "small").iterdir()
    } == PICTURES


def test_download_fetches_checks_and_unpacks_once(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, {**PICTURES, "small/notes.txt": b"-", "other/a.jpg": b"-"})
    assert not is_present("small", tmp_path)
    folder = download("small", tmp_path)
    assert folder == dataset_folder(tmp_path) == tmp_path / "coco"
    _assert_complete(folder)
    assert is_present("small", tmp_path)
    assert server.requests == [(PATH, None)]
    download("small", tmp_path)
    assert len(server.requests) == 1


def test_download_goes_to_the_data_folder(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES)
    monkeypatch.setenv("CRATE_INTERP_DATA", str(tmp_path))
    monkeypatch.setenv("CRATE_INTERP_COCO_URL", "http://127.0.0.1:9")
    _assert_complete(download("small", base_url=server.url))
    assert is_present("small")


@pytest.mark.parametrize("ranges", [True, False])
def test_download_continues_where_it_broke(server, monkeypatch, tmp_path, ranges):
    content = _offer(server, monkeypatch, PICTURES)
    server.break_after, server.ranges = 300_000, ranges
    part = tmp_path / "coco" / "small.zip.part"
    with pytest.raises(DownloadError, match=r"connection failed.*small\.zip\.part"):
        download("small", tmp_path)
    kept = part.stat().st_size
    assert 200_000 < kept <= 300_000
    assert part.read_bytes() == content[:kept]
    server.break_after = None
    _assert_complete(download("small", tmp_path))
    assert server.requests == [(PATH, None), (PATH, f"bytes={kept}-")]


def test_download_takes_a_whole_part_as_it_is(server, monkeypatch, tmp_path):
    content = _offer(server, monkeypatch, PICTURES)
    part = tmp_path / "coco" / "small.zip.part"
    part.parent.mkdir()
    part.write_bytes(content)
    _assert_complete(download("small", tmp_path))
    assert server.requests == [(PATH, f"bytes={len(content)}-")]


def test_download_starts_anew_after_too_long_a_part(server, monkeypatch, tmp_path):
    content = _offer(server, monkeypatch, PICTURES)
    part = tmp_path / "coco" / "small.zip.part"
    part.parent.mkdir()
    part.write_bytes(content + b"more")
    _assert_complete(download("small", tmp_path))
    assert [wanted for _, wanted in server.requests] == [f"bytes={len(content) + 4}-", None]


def test_download_of_a_wrong_checksum_is_removed_and_fetched_anew(server, monkeypatch, tmp_path):
    content = _offer(server, monkeypatch, PICTURES)
    server.files[PATH] = bytes(len(content))
    with pytest.raises(DownloadError, match="MD5 checksum"):
        download("small", tmp_path)
    assert list((tmp_path / "coco").iterdir()) == []
    server.files[PATH] = content
    _assert_complete(download("small", tmp_path))


def test_download_of_a_missing_file_names_the_address(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES)
    del server.files[PATH]
    with pytest.raises(DownloadError, match=rf"404.*{server.url}{PATH}.*CRATE_INTERP_COCO_URL"):
        download("small", tmp_path)


def test_download_without_a_server_says_so(monkeypatch, tmp_path, server):
    _offer(server, monkeypatch, PICTURES)
    with pytest.raises(DownloadError, match="connection failed"):
        download("small", tmp_path, base_url="http://127.0.0.1:9")


def test_download_of_an_incomplete_archive_is_refused(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES, count=4)
    with pytest.raises(DownloadError, match=r"expected 4 files small/\*\.jpg, found 3"):
        download("small", tmp_path)


def test_download_of_no_zip_file_is_refused(server, monkeypatch, tmp_path):
    content = b"no zip file"
    _offer(server, monkeypatch, PICTURES, md5=hashlib.md5(content).hexdigest())
    server.files[PATH] = content
    with pytest.raises(DownloadError, match="not a whole zip file"):
        download("small", tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "small/../../evil.jpg", "/evil.jpg", "C:\\evil.jpg"]
)
def test_archive_that_leads_outside_is_refused(server, monkeypatch, tmp_path, name):
    _offer(server, monkeypatch, {name: b"evil", **PICTURES})
    with pytest.raises(DownloadError, match="leads outside"):
        download("small", tmp_path)
    assert not list(tmp_path.rglob("evil*"))


def test_download_completes_a_half_unpacked_folder(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES)
    kept = tmp_path / "coco" / "small" / "0.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(PICTURES["small/0.jpg"])
    before = kept.stat().st_mtime_ns
    _assert_complete(download("small", tmp_path))
    assert kept.stat().st_mtime_ns == before


def test_download_overwrites_no_other_file(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES)
    mine = tmp_path / "coco" / "small" / "1.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"1\.jpg: expected 150000 bytes, found 4; move"):
        download("small", tmp_path)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    _assert_complete(download("small", tmp_path))
    assert len(server.requests) == 1  # the archive was kept


def test_download_into_a_file_says_so(server, monkeypatch, tmp_path):
    _offer(server, monkeypatch, PICTURES)
    (tmp_path / "coco").touch()
    with pytest.raises(DownloadError, match="coco: "):
        download("small", tmp_path)


@pytest.mark.parametrize("name", ["", "coco-val2071"])
def test_unknown_data_set_offers_those_there_are(tmp_path, name):
    for function in (download, is_present):
        with pytest.raises(InputError, match=r"there are .*coco-val2017"):
            function(name, tmp_path)


def test_data_sets_name_what_open_coco_reads():
    assert module.COCO_URL.startswith("http://")
    for split in ("val2017", "train2017"):
        pictures, annotations = DATASETS[f"coco-{split}"]
        assert (pictures.path, pictures.folder) == (f"zips/{split}.zip", split)
        assert annotations.folder == "annotations"
        assert annotations.pattern == f"instances_{split}.json"
        assert all(len(bytes.fromhex(archive.md5)) == 16 for archive in (pictures, annotations))
