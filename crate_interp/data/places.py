"""Places that images are given by: files, folders, tar files, lists of paths, patterns, URLs."""

from __future__ import annotations

import glob
import math
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from crate_interp.data.built_in import BUILT_IN_SETS
from crate_interp.data.folders import ImageFile, kind_of_name, search_folder, tell_of_left_out
from crate_interp.data.stored import (
    StoredImage,
    file_system_of,
    is_url,
    opened_place,
    path_in,
    worded,
)
from crate_interp.data.tars import expand_braces, leads_outside, tar_members
from crate_interp.errors import InputError, shorten

__all__ = ["find_images", "list_images"]


def list_images(paths: Iterable[str | Path], recursive: bool = False) -> list[Path | StoredImage]:
    """List the images among files, folders and other places, as `find_images` finds them."""
    return [image.path for image in find_images(paths, recursive)]


def find_images(paths: Iterable[str | Path], recursive: bool = False) -> list[ImageFile]:
    """Find the images among files, folders and other places.

    - A file is taken whatever its suffix. Of a folder, the files that lie directly in it and have
      one of `image_suffixes` are taken, sorted by name. What else lies there is counted and logged,
      in one line a folder, but for hidden entries and files of text and data.
    - Of a tar file (`.tar`, uncompressed; WebDataset's shards are such), the members with those
      suffixes are taken in their order, whatever folders they are in.
    - A list (`.txt`) names a file or a URL on each line, relative to its own folder.
    - All of these may be URLs that `fsspec` knows: s3://, gs://, hf://, http://, https://, ...
    - Of a place that is none, `{000..127}` and `{a,b}` are written out, and then `*`, `?` and
      `[...]` stand for what is there, sorted.

    Args:
        paths: Places, in the order of the images.
        recursive: Search the folders in the folders, too; links to folders are followed.

    Returns:
        Every image once.

    Raises:
        InputError: A place does not exist or cannot be read, or holds no image, or there is none.
    """
    levels = math.inf if recursive else 1
    places = [place for path in paths for place in _written_out(str(path))]
    if not places:
        raise InputError("expected image files or folders, found none")
    if len(places) == 1:
        return _images_at(places[0], levels)
    return _each_once(image for place in places for image in _images_at(place, levels))


def _each_once(images: Iterable[ImageFile]) -> list[ImageFile]:
    found: dict[str | StoredImage, ImageFile] = {}
    for image in images:
        path = image.path
        found.setdefault(path if isinstance(path, StoredImage) else str(path.absolute()), image)
    return list(found.values())


def _written_out(place: str) -> list[str]:
    """Places that a pattern stands for; a place that is there stands for itself."""
    remote = is_url(place)
    if not any(sign in place for sign in "{}*?[") or (not remote and _is_there(place)):
        return [place]
    names = expand_braces(place) if "{" in place or "}" in place else [place]
    return [found for name in names for found in _matching(name)]


def _is_there(place: str) -> bool:
    try:
        return os.path.lexists(place)
    except ValueError:  # a NUL
        return False


def _matching(pattern: str) -> list[str]:
    if is_url(pattern):
        if not any(sign in pattern for sign in "*["):  # `?` begins a query
            return [pattern]
        fs, path = file_system_of(pattern)
        with worded(f"{pattern}: "):
            found = sorted(fs.unstrip_protocol(name) for name in fs.glob(path))
    elif not glob.has_magic(pattern):
        return [pattern]
    else:
        found = sorted(glob.glob(pattern))  # noqa: PTH207  (of whole paths)
    if not found:
        raise InputError(f"{pattern}: expected files of such names, found none")
    return found


def _images_at(place: str, levels: float) -> list[ImageFile]:
    suffix = PurePosixPath(path_in(place) if is_url(place) else place).suffix.lower()
    if is_url(place):
        if suffix == ".tar":
            return _in_tar(place)
        if suffix == ".txt":
            return _in_list(place)
        is_page = place.lower().startswith("http") and not path_in(place).endswith("/")
        if is_page or kind_of_name(path_in(place)) == "image":
            return [ImageFile(StoredImage(place), PurePosixPath(path_in(place)).name or place)]
        return _in_remote_folder(place, levels)
    path = Path(place)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        built_in = "; --coco opens the built-in set of that name" if place in BUILT_IN_SETS else ""
        raise InputError(f"{path}: no such file or folder{built_in}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if stat.S_ISDIR(mode):
        return search_folder(path, levels)
    if suffix in (".tar", ".txt") and stat.S_ISREG(mode):
        return _in_tar(place) if suffix == ".tar" else _in_list(place)
    return [ImageFile(path, path.name)]


def _in_remote_folder(url: str, levels: float) -> list[ImageFile]:
    fs, root = file_system_of(url)
    depth = None if math.isinf(levels) else int(levels)
    with worded(f"{url}: "):
        entries = fs.find(root, maxdepth=depth, withdirs=True, detail=True)
    images: list[ImageFile] = []
    left_out: Counter[str] = Counter()
    for path, info in entries.items():
        name = path.removeprefix(root).strip("/") if path.startswith(root) else ""
        if url.lower().startswith("http"):
            name = unquote(name.partition("?")[0])
        if not name or any(part.startswith(".") for part in name.split("/")):
            continue
        if info.get("type") == "directory":
            left_out["folder (--recursive)"] += depth is not None
        elif (kind := kind_of_name(name)) == "image":
            images.append(ImageFile(StoredImage(fs.unstrip_protocol(path)), name))
        elif kind is not None:
            left_out[kind] += 1
    tell_of_left_out(url, "in this folder", len(images), +left_out)
    return sorted(images, key=lambda image: PurePosixPath(image.name).parts)


def _in_tar(place: str) -> list[ImageFile]:
    images: dict[str, ImageFile] = {}
    left_out: Counter[str] = Counter()
    for member in tar_members(place):
        name = member.name.removeprefix("./")
        kind = _kind_of_member(member, name)
        if kind == "image":
            if name in images:
                raise InputError(f"{place}: {shorten(name)}: occurs twice")
            stored = StoredImage(place, name, member.offset_data, member.size)
            images[name] = ImageFile(stored, name)
        elif kind is not None:
            left_out[kind] += 1
    tell_of_left_out(place, "in this tar file", len(images), left_out)
    return list(images.values())


def _kind_of_member(member: tarfile.TarInfo, name: str) -> str | None:
    if member.isdir() or any(
        part.startswith((".", "__")) for part in name.split("/") if part != ".."
    ):
        return None  # hidden, or what WebDataset keeps for itself
    if member.issym() or member.islnk():
        return "link"
    if not member.isreg():
        return "device"
    if leads_outside(name) or "\0" in name:
        return "name that leads outside"
    return "sparse file" if member.issparse() else kind_of_name(name)


def _in_list(place: str) -> list[ImageFile]:
    images = _each_once(_listed(place))
    if not images:
        raise InputError(f"{place}: expected the path of an image on each line, found none")
    return images


def _listed(place: str) -> Iterator[ImageFile]:
    """Images of a list; a line that names none is refused with its number."""
    with opened_place(place) as file:
        for number, line in enumerate(file, start=1):
            text = os.fsdecode(line).strip("\r\n")
            if not text.strip():
                continue
            try:
                yield _listed_at_url(place, text) if is_url(place) else _listed_here(place, text)
            except InputError as error:
                raise InputError(f"{place}, line {number}: {shorten(text)}: {error}") from None


def _listed_here(place: str, text: str) -> ImageFile:
    if is_url(text):
        return ImageFile(StoredImage(text), PurePosixPath(path_in(text)).name or text)
    path = Path(place).parent / text
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be read: {reason}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise InputError(f"expected an image file, found {kind}")
    name = PurePosixPath(text.replace(os.sep, "/")).as_posix()
    return ImageFile(path, path.name if leads_outside(name) else name)


def _listed_at_url(place: str, text: str) -> ImageFile:
    """An image of a list behind a URL, which may name no files of this machine."""
    protocol = place.partition("://")[0]
    if is_url(text):
        if text.partition("://")[0] != protocol:
            raise InputError(f"expected a URL of {protocol}://")
        return ImageFile(StoredImage(text), PurePosixPath(path_in(text)).name or text)
    name = PurePosixPath(text).as_posix()
    if leads_outside(name):
        raise InputError("expected a path below the folder of the list")
    is_http = protocol.lower().startswith("http")
    folder = (place.partition("?")[0] if is_http else place).rpartition("/")[0]
    return ImageFile(StoredImage(f"{folder}/{quote(name) if is_http else name}"), name)
