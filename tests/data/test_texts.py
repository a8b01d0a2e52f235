"""Texts of files and folders, and vocabularies."""

import hashlib
import json
import sys

import numpy as np
import pytest

from crate_interp.data.texts import find_texts, list_texts, read_texts, read_tokens
from crate_interp.data.vocabulary import (
    CharacterVocabulary,
    open_vocabulary,
    read_vocabulary,
    split_text,
)
from crate_interp.errors import InputError

ABC = CharacterVocabulary("abc")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_characters_become_numbers_and_come_back():
    vocabulary = CharacterVocabulary.of(["beta", "é😀\n"])
    assert vocabulary.record == {"characters": "\nabeté😀"}
    tokens = vocabulary.encode("tab\né😀")
    assert tokens.tolist() == [4, 1, 2, 0, 5, 6]
    assert vocabulary.decode(tokens.tolist()) == "tab\né😀"
    assert vocabulary.encode("").tolist() == []
    again = open_vocabulary(json.loads(json.dumps(vocabulary.record)))
    assert (again.size, again.end) == (7, None)
    assert again.encode("beta").tolist() == vocabulary.encode("beta").tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [("abd", "character 'd' at 2: expected one of the 3"), ("A", "character 'A' at 0")],
)
def test_a_character_outside_the_vocabulary_is_named(text, message):
    with pytest.raises(InputError, match=message):
        ABC.encode(text)


@pytest.mark.parametrize("record", [{}, {"characters": ""}, {"characters": "aa"}, {"name": 3}])
def test_what_is_no_vocabulary_is_refused(record):
    with pytest.raises(InputError, match=r"vocabulary: expected|record of a vocabulary"):
        open_vocabulary(record)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, "to": 1, "be": 2, "or": 3, "<|endoftext|>": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def test_a_vocabulary_of_tokenizers_is_read_and_goes_with_its_record(tokenizer_file):
    vocabulary = read_vocabulary(str(tokenizer_file))
    assert (vocabulary.size, vocabulary.end) == (5, 4)
    again = open_vocabulary(json.loads(json.dumps(vocabulary.record)))
    assert again.encode("to be or not").tolist() == [1, 2, 3, 0]
    assert again.decode([1, 2]) == "to be"


class Bytes:
    """A token per byte."""

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")


def test_each_token_has_its_text_and_a_character_of_several_is_the_last_ones():
    assert split_text(ABC, [2, 0]) == ["c", "a"]
    assert split_text(ABC, []) == []
    assert split_text(Bytes(), "a\u00e9b".encode()) == ["a", "", "\u00e9", "b"]


def test_text_of_words_keeps_the_spaces_between_them(tokenizer_file):
    assert split_text(read_vocabulary(str(tokenizer_file)), [1, 2, 1]) == ["to", " be", " to"]


@pytest.mark.parametrize("content", ["", "{}", "no JSON", b"\xff"])
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    pytest.importorskip("tokenizers")
    path = write(tmp_path / "tokenizer.json", content)
    with pytest.raises(InputError, match=r"tokenizer\.json: "):
        read_vocabulary(str(path))


def test_a_vocabulary_that_cannot_encode_is_named(tmp_path):
    pytest.importorskip("tokenizers")
    model = {"type": "WordLevel", "vocab": {"to": 0}, "unk_token": "none"}
    path = write(tmp_path / "words.json", json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(InputError, match=r"words\.json: cannot encode the text: WordLevel error"):
        read_vocabulary(str(path)).encode("be")


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_a_missing_package_is_named(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    name = "gpt2" if package == "tiktoken" else str(write(tmp_path / "t.json", "{}"))
    with pytest.raises(InputError, match=rf"needs the package {package}: .*crate-interp\[text\]"):
        read_vocabulary(name)


def test_texts_are_found_by_folder_and_by_part_of_the_name(tmp_path):
    for name in ("wiki.train.tokens", "wiki.test.tokens", "train.md", "more/train.txt"):
        write(tmp_path / name, "a")
    assert [path.name for path in list_texts(tmp_path, "train")] == ["wiki.train.tokens"]
    assert [path.name for path in list_texts(tmp_path, "more")] == ["train.txt"]
    assert len(list_texts(tmp_path)) == 3
    assert list_texts(tmp_path / "train.md", "train") == [tmp_path / "train.md"]
    with pytest.raises(InputError, match=r"expected a folder valid, or files such as valid\.txt"):
        list_texts(tmp_path, "valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected files ending in \.txt.*found none"):
        list_texts(tmp_path / "empty")


def test_the_built_in_text_is_found_by_name_unless_a_file_has_it(tmp_path):
    place = find_texts("shakespeare", str(tmp_path))
    digest = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert hashlib.sha256(place.read_bytes()).hexdigest() == digest
    own = write(tmp_path / "shakespeare", "mine")
    assert find_texts("shakespeare", str(tmp_path)) == own
    with pytest.raises(InputError, match=r"none\.txt: expected a text file, a folder"):
        find_texts("none.txt", str(tmp_path))


def test_lines_of_json_are_texts_and_any_other_file_is_one(tmp_path):
    lines = write(tmp_path / "l.jsonl", '{"text": "ab"}\n\n{"text": "c\\u2028", "id": 3}\n')
    assert list(read_texts(lines)) == ["ab", "c\u2028"]
    assert list(read_texts(write(tmp_path / "t.txt", "\ufeffab\nc"))) == ["ab\nc"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "", r"t\.txt: expected a text, found an empty file"),
        ("t.txt", "\n \n", "found an empty file"),
        ("t.txt", b"ab\xff", "expected UTF-8, found invalid start byte at 2"),
        ("t.jsonl", '{"text": "a"}\n{"text"', r"t\.jsonl: line 2: not a JSON file"),
        ("t.jsonl", '{"body": "a"}', "line 1: .*text"),
        ("t.txt", "abd", r"t\.txt: character 'd' at 2"),
        ("t.bin", b"\x01\x00", "expected texts for a vocabulary of characters"),
    ],
)
def test_files_that_hold_no_text_are_refused(name, content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        list(read_tokens(write(tmp_path / name, content), ABC))


def test_token_numbers_are_read_in_place(tmp_path, tokenizer_file):
    vocabulary = read_vocabulary(str(tokenizer_file))
    path = write(tmp_path / "train.bin", np.array([1, 4, 2], "<u2").tobytes())
    (tokens,) = read_tokens(path, vocabulary)
    assert isinstance(tokens, np.memmap)
    assert tokens.tolist() == [1, 4, 2]
    for content, message in ((b"", "found 0 bytes"), (b"abc", "found 3"), (b"\5\0", "below 5")):
        with pytest.raises(InputError, match=message):
            list(read_tokens(write(path, content), vocabulary))
