"""Texts that a run trains on: windows of tokens by number.

Windows to train on begin anywhere, drawn by (seed, number), so a run that goes on sees the same
ones. Windows to validate on follow one another.

Shapes: T tokens of a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from crate_interp.data.hub_texts import has_split, is_hub_text
from crate_interp.data.texts import find_texts, join_tokens, one_row, read_texts, text_files
from crate_interp.data.vocabulary import CharacterVocabulary, Vocabulary, read_vocabulary
from crate_interp.errors import InputError
from crate_interp.training.data import TrainingData
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import describe_data

__all__ = ["TextData", "Windows", "open_text_data"]

Tokens = Int[np.ndarray, " T"]


class Windows:
    """Windows of a text by number, each of `context` tokens and the one after them.

    Args:
        tokens: Tokens of the text, more than `context`.
        context: Tokens that a model sees at once.
        drawn: Seed, and number of windows, of those that begin anywhere; `None`: one after the
            other, without the last tokens if they are fewer than a window.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, tokens: Tokens, context: int, drawn: tuple[int, int] | None = None) -> None:
        self.tokens, self._context, self._drawn = tokens, context, drawn
        self.endless = drawn is not None

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self._context if self._drawn is None else self._drawn[1]

    def __getitem__(self, index: int) -> tuple[Tokens, int]:
        start = index * self._context
        if self._drawn is not None:
            rng = np.random.default_rng([self._drawn[0], index])
            start = int(rng.integers(len(self.tokens) - self._context))
        return self.tokens[start : start + self._context + 1].astype(np.int64), 0


@dataclass(frozen=True)
class TextData(TrainingData):
    """Texts that a run trains on and is measured on.

    Attributes:
        training: Windows to train on.
        validation: Windows to measure.
        num_classes: Number of tokens of the vocabulary.
        vocabulary: The vocabulary.
        files: Number of files.
    """

    training: Windows
    validation: Windows | None
    vocabulary: Vocabulary
    files: int

    @cached_property
    def record(self) -> dict[str, Any]:
        """Number of files and tokens, size of the vocabulary, and SHA-256 of all tokens."""
        digest = hashlib.sha256(str(self.vocabulary.record).encode(errors="surrogatepass"))
        parts = [self.training] if self.validation is None else [self.training, self.validation]
        for part in parts:
            digest.update(f"\n{len(part.tokens)} ".encode())
            digest.update(np.ascontiguousarray(part.tokens).data)
        return {
            "files": self.files,
            "tokens": len(self.training.tokens),
            "validation": 0 if self.validation is None else len(self.validation.tokens),
            "vocabulary": self.num_classes,
            "tokens_sha256": digest.hexdigest(),
        }


def open_text_data(recipe: Recipe, context: int) -> TextData:
    """Read the texts of a recipe, as numbers of tokens.

    Args:
        recipe: Recipe, which names texts, splits and vocabulary.
        context: Tokens that a model sees at once.

    Raises:
        InputError: A file cannot be read, or there are too few tokens, to train on or to validate.
    """
    training, validation = _files_of(recipe)
    files = [*training, *validation]
    if recipe.tokenizer is None:
        vocabulary: Vocabulary = CharacterVocabulary.of(
            text for path in files for text in read_texts(path)
        )
    else:
        vocabulary = read_vocabulary(recipe.tokenizer)
    trained, measured = (
        [join_tokens(path, vocabulary) for path in part] for part in (training, validation)
    )
    if recipe.held_out is not None:
        ends = [len(part) - int(len(part) * recipe.held_out) for part in trained]
        measured = [part[end:] for part, end in zip(trained, ends, strict=True)]
        trained = [part[:end] for part, end in zip(trained, ends, strict=True)]
    drawn = (recipe.seed, (recipe.steps or 0) * recipe.batch_size)
    where = describe_data(recipe)
    windows = Windows(_joined(trained, context, f"{where}: training"), context, drawn)
    others = None
    if measured:
        others = Windows(_joined(measured, context, f"{where}: validation"), context)
    return TextData(windows, others, vocabulary.size, vocabulary, len(files))


def _files_of(recipe: Recipe) -> tuple[list[Path], list[Path]]:
    """Files to train on, and files to validate on, if these are others."""
    if not isinstance(recipe.data, str):
        raise InputError("data: expected a text file, or a folder of them, found several sources")
    name, root, split = recipe.data, recipe.data_root, recipe.validation_split
    if recipe.held_out is not None:
        return text_files(name, root), []
    if split is None:
        return text_files(name, root, recipe.train_split), []
    if is_hub_text(name):
        kind, where, whole = "split", name, has_split(name)
    else:
        place = find_texts(name, root)
        kind, where, whole = "file", str(place), place.is_file()
    if whole:
        raise InputError(
            f"data {where}: a {kind} has no split {split}: give held_out, or validation_split: null"
        )
    return text_files(name, root, recipe.train_split), text_files(name, root, split)


def _joined(parts: Sequence[Tokens], context: int, where: str) -> Tokens:
    tokens = one_row(parts)
    if len(tokens) <= context:
        raise InputError(
            f"{where}: expected more than the context of {context} tokens, found {len(tokens)}"
        )
    return tokens
