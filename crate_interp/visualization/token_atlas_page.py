"""The atlas of a text model as one HTML page, which needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crate_interp.errors import InputError
from crate_interp.visualization.atlas_page import fill_page, short_number

__all__ = ["TokenCard", "TokenContext", "token_atlas_page"]

_LEVELS = 9  # shades of a token, beside none


@dataclass(frozen=True)
class TokenContext:
    """A token that an atom fires on, and those around it.

    Attributes:
        place: Where it stands, in words.
        pieces: Text of each token of the context.
        values: Value of the atom on each of them, at least 0.
        middle: Number of the token among them, from 0.
    """

    place: str
    pieces: Sequence[str]
    values: Sequence[float]
    middle: int


@dataclass(frozen=True)
class TokenCard:
    """Entry of the page for one atom.

    Attributes:
        atom: Number of the atom.
        frequency: Share of all tokens that it fires on.
        windows: Number of windows that it fires in.
        mean: Mean value where it fires.
        selectivity: Selectivity index, in [0, 1].
        best_class: Index of the token it goes with; -1 for none.
        contexts: Tokens it fires on most, the strongest first.
    """

    atom: int
    frequency: float
    windows: int
    mean: float
    selectivity: float
    best_class: int
    contexts: Sequence[TokenContext]


def token_atlas_page(
    title: str, about: str, cards: Sequence[TokenCard], classes: Sequence[str], num_windows: int
) -> str:
    """Write the page: atoms to sort and search, each with its strongest tokens in context.

    Args:
        title: Heading of the page.
        about: Paragraph below the heading.
        cards: The atoms.
        classes: Texts of the tokens of the vocabulary, empty if atoms have no best one.
        num_windows: Number of windows of the atlas.

    Returns:
        HTML that asks for no other file.

    Raises:
        InputError: No atom.
    """
    if not cards:
        raise InputError("expected one atom or more on the page, found none")
    data = {
        "about": about,
        "seen": num_windows,
        "words": {
            "parts": "tokens",
            "wholes": "windows",
            "selectivity": "token selectivity",
            "search": "number, token or text",
        },
        "grid": (1, 1),
        "least": min(5, num_windows),
        "classes": [_visible(text) for text in classes],
        "pictures": [],
        "atoms": [_entry(card) for card in cards],
    }
    return fill_page(title, data)


def _entry(card: TokenCard) -> dict[str, object]:
    largest = max((max(context.values) for context in card.contexts), default=0.0) or 1.0
    return {
        "atom": card.atom,
        "frequency": short_number(card.frequency),
        "images": card.windows,
        "mean": short_number(card.mean),
        "selectivity": short_number(card.selectivity),
        "class": card.best_class,
        "contexts": [
            (
                context.place,
                short_number(context.values[context.middle]),
                context.middle,
                context.pieces,
                "".join(str(round(_LEVELS * value / largest)) for value in context.values),
            )
            for context in card.contexts
        ],
    }


def _visible(text: str) -> str:
    """Give white space a sign that is seen."""
    return text.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5")
