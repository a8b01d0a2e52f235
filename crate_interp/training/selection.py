"""Choice of pictures by their names: those held out for validation, and those left out.

A picture is called `SOURCE/PATH`; where the data lie, and in which order, does not matter.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes

__all__ = ["is_held_out", "read_exclusions", "report_missing"]

_logger = logging.getLogger(__name__)


def is_held_out(name: str, share: float) -> bool:
    """Whether a picture is held out for validation.

    As a number, its SHA-1 is as good as drawn by lot: with a share of a/b, pictures whose remainder
    by b is below a are held out. A share of 0.05 takes each 20th number.

    Args:
        name: `SOURCE/PATH` of the picture.
        share: Share of all pictures that are held out, 0 to 1.
    """
    part = Fraction(str(share))
    number = int(hashlib.sha1(name.encode(errors="surrogateescape")).hexdigest(), 16)
    return number % part.denominator < part.numerator


def read_exclusions(path: Path, sources: Sequence[str]) -> dict[str, set[str]]:
    """Read a list of pictures to leave out: a line `SOURCE/PATH` each; `#` begins a comment.

    Args:
        path: The file.
        sources: Names of the sources that there are.

    Returns:
        Paths by source.

    Raises:
        InputError: The file cannot be read, or a line has no path or names no source.
    """
    try:
        lines = read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a text in UTF-8: {error}") from None
    exclusions: dict[str, set[str]] = {name: set() for name in sources}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        source, _, inside = line.partition("/")
        if source not in exclusions or not inside:
            raise InputError(
                f"{path}, line {number}: expected SOURCE/PATH with a source of "
                f"{', '.join(sources)}, found {shorten(line)}"
            )
        exclusions[source].add(inside)
    return exclusions


def report_missing(
    path: Path, exclusions: Mapping[str, set[str]], present: Mapping[str, Iterable[str]]
) -> None:
    """Tell of pictures of a list that are not there.

    Copies of a data set differ in a few pictures, damaged ones above all, so some may be missing;
    if all of a source are, the list is of another layout and would leave out nothing.

    Args:
        path: File of the list.
        exclusions: Paths of the list by source.
        present: Paths of the list that were met, by source.

    Raises:
        InputError: None of a source's pictures is there.
    """
    for source, paths in exclusions.items():
        missing = sorted(paths.difference(present.get(source, ())))
        if not missing:
            continue
        if len(missing) == len(paths):
            raise InputError(
                f"{path}: expected pictures of source {source}, such as {shorten(missing[0])}; "
                f"found none of its {len(paths)} in the source"
            )
        _logger.warning(
            "%s: %d of %d pictures of source %s are not there, the first %s",
            path,
            len(missing),
            len(paths),
            source,
            shorten(missing[0]),
        )
