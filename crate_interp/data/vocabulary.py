"""Vocabularies: texts to numbers of tokens, and back."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes

__all__ = [
    "CharacterVocabulary",
    "Vocabulary",
    "WordVocabulary",
    "open_vocabulary",
    "read_vocabulary",
    "split_text",
]

_UTF32 = ("utf-32-le", "surrogatepass")
_WORD = re.compile(r"\w+")


@runtime_checkable
class Vocabulary(Protocol):
    """Tokens by number.

    Attributes:
        size: Number of tokens.
        end: Number of the token that stands between two texts; `None` if there is none.
        record: What `open_vocabulary` makes the same vocabulary of, as JSON has it.
    """

    size: int
    end: int | None
    record: Mapping[str, Any]

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """Turn a text into token numbers.

        Raises:
            InputError: A part of the text is no token.
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn token numbers into the text that they stand for."""


class CharacterVocabulary:
    """A token per character.

    Args:
        characters: The characters, each once; their place is their number.
    """

    end: int | None = None

    def __init__(self, characters: str) -> None:
        if not characters or len(set(characters)) < len(characters):
            raise InputError(
                f"vocabulary: expected characters, each once, found {shorten(characters)}"
            )
        self.record: Mapping[str, Any] = {"characters": characters}
        self.size = len(characters)
        codes = np.frombuffer(characters.encode(*_UTF32), np.uint32)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    @classmethod
    def of(cls, texts: Iterable[str]) -> CharacterVocabulary:
        """Make the vocabulary of some texts: their characters in order."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        return cls("".join(sorted(characters)))

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """As `Vocabulary.encode`."""
        codes = np.frombuffer(text.encode(*_UTF32), np.uint32)
        places = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        unknown = np.flatnonzero(self._codes[places] != codes)
        if len(unknown):
            place = int(unknown[0])
            raise InputError(
                f"character {shorten(text[place])} at {place}: expected one of the {self.size} "
                "characters of the model's vocabulary"
            )
        numbers: Int[np.ndarray, " T"] = self._order[places]
        return numbers

    def decode(self, tokens: Sequence[int]) -> str:
        """As `Vocabulary.decode`."""
        return "".join(self.record["characters"][token] for token in tokens)


class WordVocabulary:
    """A token per word, whatever its case; what stands between words is not looked at.

    Args:
        words: The words in lower case, each once, parted by spaces. Number 0 is the end of a text,
            1 the first word.
    """

    end: int | None = 0

    def __init__(self, words: str) -> None:
        listed = words.split()
        if not listed or len({*listed}) < len(listed) or listed != _WORD.findall(words.lower()):
            raise InputError(
                f"vocabulary: expected words in lower case, each once, found {shorten(words)}"
            )
        self.record: Mapping[str, Any] = {"words": " ".join(listed)}
        self.size = 1 + len(listed)
        self._words = listed
        self._numbers = {word: number for number, word in enumerate(listed, start=1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordVocabulary:
        """Make the vocabulary of some texts: their words in order."""
        words: set[str] = set()
        for text in texts:
            words.update(_WORD.findall(text.lower()))
        return cls(" ".join(sorted(words)))

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """As `Vocabulary.encode`."""
        words = _WORD.findall(text.lower())
        for word in words:
            if word not in self._numbers:
                raise InputError(
                    f"word {shorten(word)}: expected one of the {len(self._words)} words of the "
                    f"model's vocabulary ({', '.join(self._words[:5])}, ...)"
                )
        return np.array([self._numbers[word] for word in words], np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """As `Vocabulary.decode`; the end of a text gives no word."""
        return " ".join(self._words[token - 1] for token in tokens if token)


class _FileVocabulary:
    """A vocabulary of the package tokenizers.

    Args:
        content: Content of a `tokenizer.json`.
        source: Name of the file, for messages.
    """

    def __init__(self, content: str, source: str = "the model's tokenizer") -> None:
        self._source = source
        tokenizers = _import_optional("tokenizers")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the package raises this, and nothing more special
            raise InputError(f"no vocabulary of the package tokenizers: {error}") from None
        self.record: Mapping[str, Any] = {"tokenizers": content}
        self.size = int(self._tokenizer.get_vocab_size())
        self.end: int | None = self._tokenizer.token_to_id("<|endoftext|>")

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        try:
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # as above
            raise InputError(f"{self._source}: cannot encode the text: {error}") from None
        return np.array(encoded.ids, np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


class _NamedVocabulary:
    """A vocabulary of the package tiktoken, which fetches it once.

    Args:
        name: Its name, `gpt2` for instance.
    """

    def __init__(self, name: str) -> None:
        tiktoken = _import_optional("tiktoken")
        try:
            self._encoding = tiktoken.get_encoding(name)
        except ValueError:
            known = ", ".join(tiktoken.list_encoding_names())
            raise InputError(
                f"vocabulary {shorten(name)}: expected characters, a tokenizer.json, or one of "
                f"{known}"
            ) from None
        except Exception as error:  # those of its HTTP library
            raise InputError(f"vocabulary {name}: cannot be fetched: {error}") from error
        self.record: Mapping[str, Any] = {"name": name}
        self.size = int(self._encoding.n_vocab)
        self.end: int | None = self._encoding.eot_token

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.array(self._encoding.encode_ordinary(text), np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._encoding.decode(list(tokens)))


def open_vocabulary(record: Mapping[str, Any]) -> Vocabulary:
    """Make a vocabulary again of its record.

    Raises:
        InputError: It is no record of one, a package that it needs is not installed, or its
            vocabulary cannot be fetched.
    """
    for key, kind in _KINDS.items():
        if isinstance(record.get(key), str):
            vocabulary: Vocabulary = kind(record[key])
            return vocabulary
    raise InputError(f"expected the record of a vocabulary, found {shorten(dict(record))}")


def read_vocabulary(name: str) -> Vocabulary:
    """Open a vocabulary: a `tokenizer.json` by its path, or one of tiktoken by its name.

    Raises:
        InputError: There is no such file, or as `open_vocabulary`.
    """
    if not name.endswith(".json"):
        return _NamedVocabulary(name)
    try:
        return _FileVocabulary(read_bytes(Path(name)).decode(), name)
    except UnicodeError as error:
        raise InputError(f"{name}: {error}") from None
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None


def split_text(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[str]:
    """Give the text of each token, which together are the text of all.

    A token that ends within a character has the text before it, and the token that completes the
    character has the whole of it.

    Args:
        vocabulary: The vocabulary.
        tokens: Numbers of tokens.
    """
    ends = [""]
    for count in range(1, len(tokens) + 1):
        ends.append(vocabulary.decode(tokens[:count]).rstrip("\ufffd"))
    return [after[len(before) :] for before, after in pairwise(ends)]


def _import_optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(
            f'this vocabulary needs the package {package}: pip install "crate-interp[text]"'
        ) from None


_KINDS: dict[str, Any] = {
    "characters": CharacterVocabulary,
    "name": _NamedVocabulary,
    "tokenizers": _FileVocabulary,
    "words": WordVocabulary,
}
