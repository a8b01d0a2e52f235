"""Tar files, WebDataset's shards among them: their members are read in place, nothing is unpacked.

A tar file is gone through once, for where its members lie. Only plain files count; links, devices
and names that lead outside are left out.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from crate_interp.data.stored import opened_place
from crate_interp.errors import InputError, shorten

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["expand_braces", "leads_outside", "tar_members"]

_CHOICE = re.compile(r"\{([^{},]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MOST = 1_000_000  # names of a pattern
# Size, time, checksum and type of a plain file, at byte 124 of a header.
_PLAIN = re.compile(rb"([0-7]{11})[\0 ].{12}([0-7]{6})\0 0", re.DOTALL)
# What tarfile raises on damaged files; RecursionError: headers before headers.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError, IndexError)


def tar_members(place: str) -> Iterator[tarfile.TarInfo]:
    """Go through the members of an uncompressed tar file, in their order.

    Args:
        place: Path or URL of the file.

    Raises:
        InputError: It cannot be read, is no tar file, or ends before a member does.
    """
    with opened_place(place) as file:
        try:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # which would all be kept
                    if not 0 <= member.size <= length - member.offset_data and member.isreg():
                        raise InputError(
                            f"{place}: {shorten(member.name)}: expected {member.size} bytes, found "
                            f"{length - member.offset_data} up to the end of the file"
                        )
                    yield member
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where tarfile says nothing
                    raise InputError(f"{place}: damaged header at byte {tar.offset}")
        except _DAMAGE as error:
            raise InputError(
                f"{place}: not a readable tar file, uncompressed: {error or type(error).__name__}"
            ) from error


class _Member(tarfile.TarInfo):
    """A member whose header is read in a third of the time, where it is a plain file's.

    Only its name, size and checksum are read then; tarfile reads all of any other header.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header, 512 bytes."""
        plain = _PLAIN.match(buf, 124)
        if plain is None or len(buf) != tarfile.BLOCKSIZE or buf[345]:  # a name of two parts
            return super().frombuf(buf, encoding, errors)
        if sum(buf) - sum(buf[148:156]) + 8 * ord(" ") != int(plain[2], 8):
            return super().frombuf(buf, encoding, errors)
        member = cls(buf[:100].partition(b"\0")[0].decode(encoding, errors))
        member.size = int(plain[1], 8)
        return member


def leads_outside(name: str) -> bool:
    """Whether the name of a member, or a path, leads out of the folder that it is for."""
    return name.startswith("/") or ".." in name.split("/")


def expand_braces(pattern: str) -> list[str]:
    """Write out the names that a pattern stands for, as a shell does.

    Args:
        pattern: A name with `{0000..0010}` or `{a,b}` in it, any number of times.

    Raises:
        InputError: A brace without its partner, a range that falls, or neither range nor list; or
            braceexpand is not installed.
    """
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise InputError("shards need braceexpand: pip install 'crate-interp[train]'") from error
    for choice in _CHOICE.findall(pattern):  # which braceexpand would leave as it is, or let fall
        ends = _RANGE.fullmatch(choice)
        if ends is None:
            raise InputError(f"{pattern}: expected {{0000..0010}} or {{a,b}}, found {{{choice}}}")
        if int(ends[2]) - int(ends[1]) > _MOST:
            raise InputError(f"{pattern}: expected {_MOST} names at most, found {{{choice}}}")
        if int(ends[1]) > int(ends[2]):
            raise InputError(f"{pattern}: expected a range that rises, found {{{choice}}}")
    try:
        names = list(islice(braceexpand(pattern, escape=False), _MOST + 1))
    except ValueError as error:
        raise InputError(f"{pattern}: braces that do not pair") from error
    if len(names) > _MOST:
        raise InputError(f"{pattern}: expected {_MOST} names at most, found more")
    return names
