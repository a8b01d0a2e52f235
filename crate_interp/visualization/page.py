"""Pages of numbers, charts and pictures: one HTML file that asks for nothing outside of itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from crate_interp.errors import InputError
from crate_interp.files import escaped
from crate_interp.visualization.markup import fill_template
from crate_interp.visualization.svg_chart import Histogram, LineChart

__all__ = [
    "Bars",
    "Facts",
    "PageTable",
    "Picture",
    "PictureStrip",
    "Section",
    "Words",
    "write_page",
]

PICTURE_SIDE = 320  # pixels, the longer one: of a picture on a page at most
_FIGURE_SIDE = 1600  # pixels, the longer one: of a figure across a page
_QUALITY = 82  # of JPEG


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str

    def html(self) -> str:
        """Write it."""
        return f'<p class="words">{escaped(self.text)}</p>'


@dataclass(frozen=True)
class PageTable:
    """A table: names in the first column, numbers in the others.

    Attributes:
        header: Names of the columns.
        rows: The cells of each row, as many as there are columns.
        quiet: Numbers of rows that stand back, such as those that are quoted from elsewhere.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    quiet: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        counts = {len(row) for row in self.rows} - {len(self.header)}
        if counts:
            raise InputError(
                f"table: expected {len(self.header)} cells in each row, found {counts.pop()}"
            )

    def html(self) -> str:
        """Write it; one that is wider than the page can be moved."""
        head = "".join(f"<th>{escaped(name)}</th>" for name in self.header)
        rows = "".join(
            ('<tr class="quiet">' if number in self.quiet else "<tr>")
            + "".join(f"<td>{escaped(cell)}</td>" for cell in row)
            + "</tr>"
            for number, row in enumerate(self.rows)
        )
        return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{rows}</table></div>'


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for, which may be long."""

    facts: Sequence[tuple[str, str]]

    def html(self) -> str:
        """Write them as a table of two columns."""
        rows = "".join(
            f"<tr><td>{escaped(name)}</td><td>{escaped(value)}</td></tr>"
            for name, value in self.facts
        )
        return f'<table class="facts">{rows}</table>'


@dataclass(frozen=True)
class Bars:
    """Shares of a whole, each as a bar: a name, the share in [0, 1], and words beside it."""

    rows: Sequence[tuple[str, float, str]]

    def html(self) -> str:
        """Write them as a table with bars; the longest one fills its column."""
        longest = max((share for _, share, _ in self.rows), default=0.0) or 1.0
        rows = "".join(
            f'<tr><td>{escaped(name)}</td><td><i class="bar" style="width:'
            f'{100 * share / longest:.1f}%"></i></td><td>{escaped(words)}</td></tr>'
            for name, share, words in self.rows
        )
        return f'<table class="bars">{rows}</table>'


@dataclass(frozen=True, eq=False)
class PictureStrip:
    """Pictures of one image side by side.

    Attributes:
        title: Name of the image.
        pictures: Words below each picture, and the picture.
        caption: Words beside the title.
    """

    title: str
    pictures: Sequence[tuple[str, UInt8[np.ndarray, "H W 3"]]]
    caption: str = ""

    def html(self) -> str:
        """Write it with the pictures inside."""
        pictures = "".join(
            f'<figure class="one"><img alt="{escaped(f"{self.title}: {words}")}" '
            f'src="{_data_uri(rgb)}"><figcaption>{escaped(words)}</figcaption></figure>'
            for words, rgb in self.pictures
        )
        return (
            f'<article class="card"><h3>{escaped(self.title)} <span>{escaped(self.caption)}</span>'
            f'</h3><div class="strip">{pictures}</div></article>'
        )


@dataclass(frozen=True)
class Picture:
    """A figure across the page.

    Attributes:
        words: What it shows, for those who do not see it.
        content: A PNG or JPEG file.
    """

    words: str
    content: bytes

    def html(self) -> str:
        """Write it, as JPEG of at most 1,600 pixels."""
        bgr = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise InputError(f"{self.words}: expected a PNG or JPEG file, found another one")
        uri = _data_uri(bgr[:, :, ::-1], _FIGURE_SIDE)
        return f'<img class="figure" alt="{escaped(self.words)}" src="{uri}">'


Part: TypeAlias = Words | PageTable | Facts | Bars | Picture | PictureStrip | Histogram | LineChart


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page under a heading; charts, and strips of pictures, stand side by side.

    Attributes:
        title: The heading.
        parts: Content, from top to bottom.
        name: Name of the section, for links and for programs that read the page.
    """

    title: str
    parts: Sequence[Part]
    name: str

    def html(self) -> str:
        """Write the section."""
        content = []
        for place, parts in groupby(self.parts, _place_of):
            inside = "".join(part.html() for part in parts)
            content.append(f'<div class="{place}">{inside}</div>' if place else inside)
        return (
            f'<section id="{escaped(self.name)}">\n<h2>{escaped(self.title)}</h2>\n'
            + "\n".join(content)
            + "\n</section>"
        )


def write_page(title: str, about: str, sections: Sequence[Section]) -> str:
    """Write a page.

    Args:
        title: Heading of the page.
        about: Paragraph below the heading.
        sections: The sections, from top to bottom; those without content are left out.

    Returns:
        HTML that loads nothing, neither a file nor from the network, and runs no script.
    """
    body = "\n".join(section.html() for section in sections if section.parts)
    header = f"<header>\n<h1>{escaped(title)}</h1>\n<p>{escaped(about)}</p>\n</header>"
    return fill_template("page.html", title, BODY=f"{header}\n<main>\n{body}\n</main>")


def _place_of(part: Part) -> str:
    if isinstance(part, (Histogram, LineChart)):
        return "charts"
    return "pictures" if isinstance(part, PictureStrip) else ""


def _data_uri(rgb: UInt8[np.ndarray, "H W 3"], side: int = PICTURE_SIDE) -> str:
    scale = side / max(rgb.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in rgb.shape[1::-1]]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
