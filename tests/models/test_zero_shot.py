"""Classes as texts: the ensemble of prompts against a plain loop, with a tokenizer of letters."""

import pytest
import timm
import torch
from torch.nn import functional

from crate_interp.errors import InputError
from crate_interp.models import CrateClip, embed_classes, zero_shot
from crate_interp.models.clipa import TextTower


@pytest.fixture
def model(sizes):
    torch.manual_seed(0)
    visual = timm.create_model("crate_alpha_clipa_large_patch14_224", **sizes, num_classes=16)
    text = TextTower(vocabulary=128, context=32, width=32, depth=1, num_heads=2, embedding=16)
    return CrateClip(visual, text).eval()


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    def tokenize(texts, context):
        rows = [[ord(letter) for letter in text[:context].ljust(context)] for text in texts]
        return torch.tensor(rows)

    monkeypatch.setattr(zero_shot, "tokenize", tokenize)
    return tokenize


@pytest.mark.parametrize("at_once", [256, 2])
def test_embed_classes_averages_unit_embeddings_of_prompts(model, letters, monkeypatch, at_once):
    monkeypatch.setattr(zero_shot, "_TEXTS", at_once)
    names, templates = ["cat", "tall {tree}", "dog"], ["a {}.", "{} in {} fog"]
    found = embed_classes(model, names, templates)
    for name, embedding in zip(names, found, strict=True):
        total = torch.zeros(16)
        for prompt in (f"a {name}.", f"{name} in {name} fog"):
            with torch.no_grad():
                one = model.encode_text(letters([prompt], 32))[0]
            total += one / one.norm()
        torch.testing.assert_close(embedding, total / total.norm())


def test_one_template_classifies_as_the_model_does(model, letters, monkeypatch):
    monkeypatch.setattr("crate_interp.models.clipa.tokenize", letters)
    images = torch.randn(5, 3, 32, 32)
    expected = model.classify(images, ["a cat.", "a dog."])
    with torch.inference_mode():
        found = model.zero_shot(
            model.encode_image(images), embed_classes(model, ["cat", "dog"], ["a {}."])
        )
    torch.testing.assert_close(found, expected)
    assert functional.normalize(found, dim=1).isfinite().all()


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ([], ["{}"], "classes: expected a list"),
        ("cat", ["{}"], "classes: expected a list"),
        (["cat"], [], "templates: expected a list"),
        (["cat"], "{}", "templates: expected a list"),
        (["cat"], ["{}", "a photo"], "template 'a photo': expected {} where"),
    ],
)
def test_embed_classes_refuses_what_makes_no_prompt(model, names, templates, message):
    with pytest.raises(InputError, match=message):
        embed_classes(model, names, templates)
