"""Style of every figure: how it is written, and how much room its words take."""

from __future__ import annotations

import logging
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

__all__ = [
    "EDGE",
    "NOTE_SIZE",
    "Figure",
    "first_words",
    "line_height",
    "shortened",
    "text_width",
    "wrapped",
    "write_figure",
]

EDGE = 0.06  # inches that stay empty around a page
NOTE_SIZE = 6  # points, of the words below a figure
_LISTED = 20  # letters in a message
_ROUNDED = 1.01  # letters of a PNG stand at whole pixels, and may take as much more

_logger = logging.getLogger(__name__)

# What a file would say of the hour it was written.
_UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def write_figure(figure: Figure, file: IO[bytes] | Path, kind: str, dpi: int) -> None:
    """Write a figure, the same bytes for the same figure.

    Args:
        figure: Figure to write.
        file: File to write to.
        kind: png, pdf or svg.
        dpi: Pixels per inch, of a PNG and of images in the others.
    """
    texts = figure.findobj(Text)
    for text in texts:  # a $ in the name of a file is no formula
        text.set_parse_math(False)
    _name_missing_letters("".join(text.get_text() for text in texts))
    # TrueType fonts, because venues refuse the Type 3 ones that matplotlib embeds by default. The
    # salt makes the ids in an SVG the same each time.
    fonts = mpl.rc_context({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "crate-interp"})
    with fonts, _quiet_about_glyphs():
        figure.savefig(file, format=kind, dpi=dpi, metadata=_UNDATED.get(kind))


def _name_missing_letters(text: str) -> None:
    """Warn of letters that the font lacks, as it does those of Chinese, once for the same ones."""
    known = get_font(findfont(FontProperties())).get_charmap()
    missing = sorted(
        {letter for letter in text if ord(letter) not in known and letter.isprintable()}
    )
    if missing:
        _warn_of_letters("".join(missing))


@lru_cache(maxsize=256)
def _warn_of_letters(letters: str) -> None:
    shown = letters if len(letters) <= _LISTED else f"{letters[:_LISTED]}..."
    _logger.warning("figures show boxes for letters that their font lacks: %s", shown)


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    """Keep matplotlib from warning of each letter that the font lacks, each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield


def line_height(points: float) -> float:
    """Height of a line of text, inches."""
    return 1.3 * points / 72


@lru_cache(maxsize=4096)
def text_width(text: str, points: float, bold: bool = False) -> float:
    """Width of one line of text, inches."""
    font = FontProperties(size=points, weight="bold" if bold else "normal")
    with _quiet_about_glyphs():
        width = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
    return float(width / 72) * _ROUNDED


def wrapped(text: str, inches: float, points: float, bold: bool = False) -> list[str]:
    """Break text into lines that are no wider than a place.

    Lines end at spaces, also at the text's own line breaks; a word that is wider than the place is
    broken behind a mark such as `_` where it has one, or anywhere.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if text_width(longer, points, bold) <= inches:
                line = longer
                continue
            lines += [line] if line else []
            *full, line = _pieces(word, inches, points, bold)
            lines += full
        lines.append(line)
    return lines


def shortened(text: str, inches: float, points: float) -> str:
    """Leave out the middle of a text that is wider than a place; its ends tell names apart."""
    if text_width(text, points) <= inches:
        return text

    def of(kept: int) -> str:
        return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"

    counts = range(2, len(text))
    fitting = bisect_left(counts, True, key=lambda kept: text_width(of(kept), points) > inches)
    return of(counts[fitting - 1]) if fitting else "…"


def first_words(text: str, inches: float, points: float) -> str:
    """As many words of a text as have room; of a single long word, its ends."""
    words = text.split()
    for count in range(len(words), 0, -1):
        kept = " ".join(words[:count]) + (" ..." if count < len(words) else "")
        if text_width(kept, points) <= inches:
            return kept
    return shortened(text, inches, points)


def _pieces(word: str, inches: float, points: float, bold: bool) -> list[str]:
    pieces = []
    while (fits := _fitting(word, inches, points, bold)) < len(word):
        marks = [n for n in range(fits, fits // 2, -1) if not word[n - 1].isalnum()]
        at = marks[0] if marks else fits
        pieces.append(word[:at])
        word = word[at:]
    return [*pieces, word]


def _fitting(word: str, inches: float, points: float, bold: bool) -> int:
    """Number of a word's first characters that are no wider than a place, at least 1.

    A word may have thousands, and its width takes as long as it has characters.
    """
    most = 1
    while most < len(word) and text_width(word[:most], points, bold) <= inches:
        most *= 2
    counts = range(1, min(most, len(word)) + 1)
    return max(
        1, bisect_left(counts, True, key=lambda n: text_width(word[:n], points, bold) > inches)
    )
