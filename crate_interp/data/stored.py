"""Images that are no files of their own on this machine: behind URLs, in tar files, or both."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from crate_interp.errors import InputError

__all__ = [
    "StoredImage",
    "file_system_of",
    "is_url",
    "opened_place",
    "path_in",
    "plain_place",
    "read_part",
    "worded",
]

MAX_BYTES = 2**29  # of an image: 512 MiB, more than `MAX_PIXELS` of 16 bits take as they are
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image behind a URL, or in a tar file that may be behind one.

    Attributes:
        place: URL of the image, or path or URL of the tar file.
        member: Name of the image in the tar file.
        offset: Start of the image in the tar file, bytes.
        size: Length of the image in the tar file, bytes; `None` for all of the file.
    """

    place: str
    member: str = ""
    offset: int = 0
    size: int | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.member}" if self.member else self.place

    @property
    def parent(self) -> Path | str:
        """Folder of the file, a path or the beginning of a URL."""
        return self.place.rpartition("/")[0] if is_url(self.place) else Path(self.place).parent

    @property
    def stem(self) -> str:
        """Name of the image, without folders and suffix."""
        return PurePosixPath(self.member or path_in(self.place)).stem

    @property
    def whole_path(self) -> Path:
        """Path that the image would have if the tar file were a folder, and the URL a path."""
        if is_url(self.place):
            protocol, _, rest = self.place.partition("://")
            return Path("/", protocol, rest.strip("/"), self.member)
        return Path(self.place).absolute() / self.member

    def read(self) -> BinaryIO:
        """Read the file of the image, not decoded.

        Raises:
            InputError: It cannot be read; the message has no name.
        """
        if (self.size or 0) > MAX_BYTES:
            raise InputError(f"cannot be read: expected {MAX_BYTES} bytes at most, found more")
        if not is_url(self.place):
            try:
                return read_part(Path(self.place), self.offset, self.size)
            except EOFError as error:
                raise InputError(f"cannot be read: {error}") from None
        fs, path = file_system_of(self.place)
        end = None if self.size is None else self.offset + self.size
        with worded(""):
            content = bytes(fs.cat_file(path, self.offset or None, end))
        if self.size is not None and len(content) != self.size:
            raise InputError(
                f"cannot be read: expected {self.size} bytes from {self.offset} on, "
                f"found {len(content)}"
            )
        if not content:
            raise InputError("cannot be read: the file is empty")
        return io.BytesIO(content)


def read_part(path: Path, offset: int, size: int | None) -> BinaryIO:
    """Read a part of a file.

    Args:
        path: Opened and closed again: forked processes would share the position of an open file.
        offset: Start of the part, bytes.
        size: Length of the part, bytes; `None` up to the end.

    Raises:
        EOFError: The file ends before.
    """
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(-1 if size is None else size)
    if size is not None and len(content) < size:
        raise EOFError(f"expected {size} bytes from {offset} on, found {len(content)}")
    return io.BytesIO(content)


def is_url(place: str) -> bool:
    """Whether a text is a URL, such as s3://bucket/photos, and not a path."""
    return _URL.match(place) is not None


def plain_place(place: str | Path) -> str:
    """Write a path without "./" before and a slash behind it, as `Path` does; a URL as it is."""
    return str(place) if is_url(str(place)) else str(Path(place))


def path_in(url: str) -> str:
    """Path in a URL, with its last slash if it has one; of HTTP, without a query."""
    if url.lower().startswith(("http://", "https://")):
        return unquote(urlsplit(url).path)
    return url.partition("://")[2]


def file_system_of(url: str) -> tuple[Any, str]:
    """Open what a URL leads to by `fsspec`: the file system, and the path there.

    Raises:
        InputError: `fsspec`, or what it needs for this kind of URL, is not installed, or there is
            no such kind.
    """
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except ImportError as error:
        raise InputError(
            f"{url}: {error}; URLs need fsspec: pip install 'crate-interp[remote]', and s3fs for "
            "s3://, gcsfs for gs://"
        ) from None
    except Exception as error:  # what is behind fsspec raises what it likes
        raise InputError(f"{url}: cannot be opened: {_reason(error)}") from error
    return fs, str(path)


@contextmanager
def opened_place(place: str) -> Iterator[IO[bytes]]:
    """Open a file by its path or URL, for reading at any position.

    Raises:
        InputError: It cannot be read, in the `with` block as well; the message names it.
    """
    if not is_url(place):
        with worded(f"{place}: "), Path(place).open("rb") as file:
            yield file
        return
    fs, path = file_system_of(place)
    with worded(f"{place}: "), fs.open(path, "rb") as file:
        yield file


@contextmanager
def worded(prefix: str) -> Iterator[None]:
    """Say in one line what goes wrong in a `with` block that reads a file.

    Args:
        prefix: Name of the file, and a colon.

    Raises:
        InputError: In place of any error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # what is behind fsspec raises what it likes
        raise InputError(f"{prefix}cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
