"""Captions of the built-in scenes, and vocabularies of words."""

import numpy as np
import pytest

from crate_interp.data.scene_captions import caption_vocabulary, write_caption
from crate_interp.data.vocabulary import WordVocabulary, open_vocabulary
from crate_interp.errors import InputError


def test_captions_list_the_objects_in_their_order():
    rng = np.random.default_rng(0)
    found = {write_caption([0], rng) for _ in range(40)}
    assert found == {
        "a photo of a striped ball.",
        "a picture of a striped ball.",
        "a striped ball.",
    }
    found = {write_caption([6, 2, 0], rng) for _ in range(40)}
    assert "a ringed moon, a dotted star and a striped ball." in found


def test_a_scene_without_objects_has_no_caption():
    with pytest.raises(InputError, match="expected one object or more"):
        write_caption([], np.random.default_rng(0))


def test_words_are_numbers_and_back():
    vocabulary = caption_vocabulary()
    tokens = vocabulary.encode("A photo of a striped ball, and a Dotted star.")
    assert vocabulary.decode(tokens.tolist()) == "a photo of a striped ball and a dotted star"
    again = open_vocabulary(vocabulary.record)
    assert (again.size, again.end) == (vocabulary.size, 0)
    assert again.encode("moon").tolist() == vocabulary.encode("moon").tolist()
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode([0]) == ""
    with pytest.raises(InputError, match=r"word 'dog': expected one of the \d+ words"):
        vocabulary.encode("a dog")


@pytest.mark.parametrize("words", ["", "a b a", "A b", "a, b"])
def test_wrong_words_are_refused(words):
    with pytest.raises(InputError, match="expected words in lower case, each once"):
        WordVocabulary(words)
