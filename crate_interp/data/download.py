"""Fetching data sets: resumable, checked, unpacked to where they are looked for."""

from __future__ import annotations

import difflib
import logging
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pooch
import requests
from tqdm import tqdm

from crate_interp.data.folders import data_folder
from crate_interp.errors import InputError

__all__ = ["DATASETS", "Archive", "DownloadError", "dataset_folder", "download", "is_present"]

logger = logging.getLogger(__name__)

# Plain http: the host has no certificate of its own name. The checksums below guard the content.
COCO_URL = "http://images.cocodataset.org"


class DownloadError(InputError):
    """A data set that cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set, and the part of it that is kept.

    Attributes:
        path: Path on the server.
        md5: Checksum of the zip file.
        size: Size of the zip file, bytes.
        folder: The folder of the archive that is kept, and where it is kept.
        pattern: The files in it that are kept.
        count: Number of these files.
    """

    path: str
    md5: str
    size: int
    folder: str
    pattern: str
    count: int


def _coco(split: str, md5: str, size: int, count: int) -> tuple[Archive, Archive]:
    return (
        Archive(f"zips/{split}.zip", md5, size, split, "*.jpg", count),
        Archive(
            path="annotations/annotations_trainval2017.zip",
            md5="f4bbac642086de4f52a3fdda2de5fa2c",
            size=252_907_541,
            folder="annotations",
            pattern=f"instances_{split}.json",
            count=1,
        ),
    )


DATASETS: dict[str, tuple[Archive, ...]] = {
    "coco-val2017": _coco("val2017", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330, 5000),
    "coco-train2017": _coco(
        "train2017", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798, 118287
    ),
}


def dataset_folder(root: Path | None = None) -> Path:
    """Folder of COCO's splits and annotations: `<root>/coco`, below `data_folder()` by default."""
    return (data_folder() if root is None else Path(root)) / "coco"


def is_present(name: str, root: Path | None = None) -> bool:
    """Whether every file of a data set is there.

    Raises:
        InputError: There is no data set of this name.
    """
    return all(_is_unpacked(archive, dataset_folder(root)) for archive in _archives(name))


def download(name: str, root: Path | None = None, base_url: str | None = None) -> Path:
    """Fetch a data set, check it against its checksum, and unpack it.

    What is there already is not fetched again. A broken download is kept as `<archive>.part` and
    continued by the next call, if the server can do that. Files that are there are never
    overwritten. An archive is removed once it is unpacked and complete.

    Args:
        name: One of `DATASETS`.
        root: Data folder; `data_folder()` if not given.
        base_url: Another server with the same archives; `$CRATE_INTERP_COCO_URL`, or COCO's own
            server, if not given.

    Returns:
        The folder that the data set lies in.

    Raises:
        InputError: There is no data set of this name.
        DownloadError: The server does not answer or has no such file, the connection broke, the
            checksum is wrong, the disk is full, or something else is in the way.
    """
    archives, folder = _archives(name), dataset_folder(root)
    server = (base_url or os.environ.get("CRATE_INTERP_COCO_URL") or COCO_URL).rstrip("/")
    for archive in archives:
        if _is_unpacked(archive, folder):
            logger.info("%s of %s is there", archive.folder, name)
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _fetch(f"{server}/{archive.path}", archive.md5, folder)
            _unpack(file, archive, folder)
        except OSError as error:
            raise DownloadError(f"{folder}: {error.strerror or error}") from error
        if not _is_unpacked(archive, folder):
            raise DownloadError(
                f"{file}: expected {archive.count} files {archive.folder}/{archive.pattern}, "
                f"found {_count(archive, folder)}"
            )
        file.unlink()
    return folder


def _archives(name: str) -> tuple[Archive, ...]:
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, cutoff=0.0)
        raise InputError(f"no data set is called {name!r}; there are {', '.join(near)}")
    return DATASETS[name]


def _count(archive: Archive, folder: Path) -> int:
    return sum(1 for _ in (folder / archive.folder).glob(archive.pattern))


def _is_unpacked(archive: Archive, folder: Path) -> bool:
    return _count(archive, folder) >= archive.count


def _fetch(url: str, md5: str, folder: Path) -> Path:
    name = url.rsplit("/", 1)[-1]
    part = folder / f"{name}.part"

    def downloader(url: str, output_file: str, _: Any) -> None:
        _complete(url, part)
        part.replace(output_file)  # pooch checks this one, and removes it if it is wrong

    try:
        return Path(
            pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, downloader=downloader)
        )
    except requests.HTTPError as error:
        raise DownloadError(
            f"{error}; name another server in CRATE_INTERP_COCO_URL if the file has moved"
        ) from error
    except requests.RequestException as error:
        kept = part.stat().st_size if part.exists() else 0
        rest = f"; {kept} bytes are kept in {part}, the same command goes on from there"
        raise DownloadError(
            f"{url}: the connection failed ({error}){rest if kept else ''}"
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"{url}: expected the MD5 checksum {md5}, found another; the file was removed, "
            "fetch it again"
        ) from error


def _complete(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # a range counts the bytes as they are sent
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            if response.headers.get("Content-Range") != f"bytes */{start}":
                part.unlink()
                _complete(url, part)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        total = start + int(response.headers.get("Content-Length", 0))
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=total or None, initial=start, unit="B", unit_scale=True, desc=part.stem
            ) as progress,
        ):
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)
                progress.update(len(chunk))
    if part.stat().st_size < total:
        raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes came")


def _unpack(file: Path, archive: Archive, folder: Path) -> None:
    kept = folder / archive.folder
    kept.mkdir(exist_ok=True)
    try:
        with zipfile.ZipFile(file) as zipped:
            for member in tqdm(zipped.infolist(), desc=f"unpacking {file.name}", unit=" files"):
                as_windows = PureWindowsPath(member.filename)  # splits at both kinds of slash
                if as_windows.anchor or ".." in as_windows.parts:
                    raise DownloadError(f"{file}: {member.filename!r} leads outside {folder}")
                name = PurePosixPath(member.filename)
                if str(name.parent) == archive.folder and name.match(archive.pattern):
                    _extract(zipped, member, kept / name.name)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{file}: not a whole zip file: {error}") from error


def _extract(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.exists():
        if target.stat().st_size != member.file_size:
            raise DownloadError(
                f"{target}: expected {member.file_size} bytes, found {target.stat().st_size}; "
                "move this file away, it is not of this data set"
            )
        return
    part = target.with_name(f"{target.name}.part")
    with zipped.open(member) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    part.replace(target)
