"""Captions of the built-in scenes: what a scene holds, in words."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.vocabulary import WordVocabulary
from crate_interp.errors import InputError

__all__ = ["caption_vocabulary", "write_caption"]

_TEMPLATES = ("a photo of {}.", "a picture of {}.", "{}.")


def write_caption(labels: Sequence[int], rng: Generator) -> str:
    """Write the caption of a scene, for instance "a photo of a striped ball and a ringed moon.".

    Args:
        labels: Index into `CATEGORIES` of each object, in the order in which they are named.
        rng: Source of the choice of words around them.

    Raises:
        InputError: No object.
    """
    if not len(labels):
        raise InputError("labels: expected one object or more, found none")
    names = [f"a {CATEGORIES[label].name}" for label in labels]
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return _TEMPLATES[int(rng.random() * len(_TEMPLATES))].format(listed)


def caption_vocabulary() -> WordVocabulary:
    """Make the vocabulary of all captions."""
    return WordVocabulary.of([*_TEMPLATES, "and", *(category.name for category in CATEGORIES)])
