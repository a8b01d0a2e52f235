"""Contrastive training: loss by a plain formula, stops, the file that it ends with, refusals."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crate_interp.cli import main
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.errors import CheckpointError, InputError
from crate_interp.options.pipelines import pipeline_folder
from crate_interp.training import Recipe, read_recipe, train
from crate_interp.training.data import HELD_OUT, Scenes
from crate_interp.training.objectives.contrastive import Contrastive, contrastive_loss
from crate_interp.training.setup import updates_of
from crate_interp.weights import load_backbone, load_clip
from crate_interp.weights.clip import tokens_of

TEXT = {"context": 16, "width": 16, "depth": 1, "num_heads": 2, "embedding": 12}
SETTINGS = {
    "model": "crate_alpha_clipa_large_patch14_224",
    "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8},
    "task": "contrastive",
    "text_args": TEXT,
    "image_size": 32,
    "scene_objects": (1, 2),
    "crop_area": None,
    "batch_size": 8,
    "steps": 4,
    "learning_rate": 3e-3,
    "validation_scenes": 24,
    "workers": 0,
    "log_every": 1,
    "save_every": 1,
}


class StoppedError(Exception):
    pass


def run(folder, stop_at=None, **changes):
    folder.mkdir(exist_ok=True)
    losses = []

    def report(metrics, _):
        losses.append(metrics.loss)
        if metrics.step == stop_at:
            raise StoppedError

    return train(Recipe(**{**SETTINGS, **changes}), folder, report), losses


def content_of(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder, result and losses of a run that nothing stopped."""
    folder, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)  # as all tests here: sums depend on it
    try:
        return folder, *run(folder)
    finally:
        torch.set_num_threads(threads)


def test_loss_is_the_cross_entropy_in_both_directions():
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(size=(5, 7)) for _ in range(2))
    images, texts = (part / np.linalg.norm(part, axis=1)[:, None] for part in (images, texts))
    scale, expected = 13.0, 0.0
    for own in range(5):
        to_texts = [math.exp(scale * float(images[own] @ text)) for text in texts]
        to_images = [math.exp(scale * float(image @ texts[own])) for image in images]
        for factors in (to_texts, to_images):
            expected -= math.log(factors[own] / sum(factors)) / 10
    parts = (torch.from_numpy(images), torch.from_numpy(texts), torch.tensor(scale))
    assert contrastive_loss(*parts).item() == pytest.approx(expected, rel=1e-12)
    singles = (part.float() for part in parts)
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(*singles).item() == pytest.approx(expected, rel=1e-5)
    assert contrastive_loss(parts[0][:1], parts[1][:1], parts[2]).item() == 0


def test_a_run_that_was_stopped_ends_as_one_that_was_not(finished, tmp_path):
    folder, whole, losses = finished
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", stop_at=3, workers=1)
    parts, rest = run(tmp_path / "parts")
    assert parts == whole
    assert rest == losses[2:]
    one, two = (
        content_of(place / "model.safetensors")[0] for place in (folder, tmp_path / "parts")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_captions_name_what_the_scene_holds_and_validation_has_classes():
    objective = Contrastive(Recipe(**SETTINGS))
    training, validation = objective.data.training, objective.data.validation
    for number in range(6):
        (image, caption), _ = training[number]
        scene = training.draw(number)
        assert np.array_equal(image, scene.image)
        names = [CATEGORIES[label].name for label in scene.labels_by_size]
        assert [caption.count(name) >= 1 for name in names] == [True] * len(names)
        assert caption == training[number][0][1]
        pixels, target = objective.view((image, caption), -1, lambda picture: picture)
        assert pixels is image
        assert (
            target[1:].tolist() == tokens_of(objective.data.vocabulary, [caption], 16)[0].tolist()
        )
    assert isinstance(validation, Scenes)
    assert validation.classes == tuple(category.name for category in CATEGORIES)
    own = Scenes(Recipe(**SETTINGS), HELD_OUT, 24)
    assert np.array_equal(own[3][0], validation[3][0])


def test_the_file_holds_both_towers_and_classifies_by_names(finished, tmp_path, capsys):
    folder, result, _ = finished
    file = folder / "model.safetensors"
    tensors, metadata = content_of(file)
    assert (metadata["num_classes"], metadata["text_num_heads"]) == ("12", "2")
    assert "classes" not in metadata
    model = load_clip(file)
    assert model.text.blocks[0].attn.num_heads == 2
    assert torch.equal(model.visual.head.weight.detach(), tensors["head.weight"])
    assert torch.equal(model.text.pos_embed.detach(), tensors["text.pos_embed"])
    assert torch.equal(model.logit_scale.detach(), tensors["logit_scale"])
    backbone = load_backbone(file)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model.encode_image(images))
        prompts = ["A dotted star!", "a striped ball"]
        assert model.classify(images, prompts).shape == (2, 2)
    with pytest.raises(InputError, match=r"word 'dog': expected one of the \d+ words"):
        model.classify(images, ["a dog"])
    output = tmp_path / "accuracy.json"
    arguments = ["--data", "scenes", "--device", "cpu", "--workers", "0", "--output", str(output)]
    assert main(["evaluate-classifier", "--model", str(file), *arguments]) == 0
    measured = json.loads(output.read_text())
    assert measured["top1"] == pytest.approx(result.accuracy, abs=1e-12)
    assert (measured["count"], measured["templates"]) == (24, ["a photo of a {}."])


def test_training_begins_with_both_towers_of_a_file(finished):
    file = finished[0] / "model.safetensors"
    tensors, _ = content_of(file)
    model = Contrastive(Recipe(**SETTINGS, initial_weights=str(file))).build_model()
    found = {**model.visual.state_dict(), "logit_scale": model.logit_scale}
    found |= {f"text.{key}": value for key, value in model.text.state_dict().items()}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in found)


def test_the_factor_on_cosines_stays_below_its_limit():
    objective = Contrastive(Recipe(**SETTINGS))
    model = objective.build_model()
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    model.logit_scale.data.fill_(6.0)
    exported = objective.export(model)[0]["logit_scale"]
    assert exported.exp().item() == pytest.approx(100)
    objective.enter_stage(model, objective.recipe)
    assert model.logit_scale.exp().item() == pytest.approx(100)
    model.set_grad_checkpointing(True)
    assert model.visual.grad_checkpointing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "photographs"}, "data: expected scenes, .* found data photographs"),
        ({"sharding": "fsdp"}, "sharding: expected none for the task contrastive, found fsdp"),
        ({"text_args": {"heads": 2}}, "text_args: unknown size 'heads'; expected context"),
        ({"text_args": {"depth": 0}}, "text_args: depth: expected 1 to 256, found 0"),
        ({"text_args": {**TEXT, "width": 15}}, "text width 15 is not a multiple of its 2 heads"),
        ({"model": "crate_alpha_demo"}, "expected a CRATE-alpha with projection_head"),
        ({"model": "vit_tiny_patch16_224"}, "projection_head, found a VisionTransformer"),
        ({"task": "classification"}, "text_args: is for the task contrastive"),
    ],
)
def test_recipes_without_captions_or_towers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Contrastive(Recipe(**{**SETTINGS, **changes})).build_model()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text_num_heads", "0", "text_num_heads: expected 1 to 16, found 0"),
        ("text_num_heads", "[]", "text_num_heads"),
        ("vocabulary", '{"words": "a b"}', r"vocabulary: expected \d+ tokens, found 3"),
        ("vocabulary", '{"words": ""}', "vocabulary: expected words in lower case"),
        ("text.pos_embed", None, r"no text tower in it: text\.pos_embed is missing"),
        ("logit_scale", torch.zeros(2), r"logit_scale: expected 0 dimensions"),
    ],
)
def test_damaged_files_are_refused_by_name(finished, tmp_path, key, value, message):
    tensors, metadata = content_of(finished[0] / "model.safetensors")
    part = metadata if key in metadata else tensors
    part.pop(key)
    if value is not None:
        part[key] = value
    save_file(tensors, tmp_path / "damaged.safetensors", metadata=metadata)
    with pytest.raises((CheckpointError, InputError), match=rf"damaged\.safetensors: .*{message}"):
        load_clip(tmp_path / "damaged.safetensors")


def test_no_text_gives_no_tokens():
    vocabulary = Contrastive(Recipe(**SETTINGS)).data.vocabulary
    with pytest.raises(InputError, match="expected a list of one text or more"):
        tokens_of(vocabulary, [], 8)
    assert tokens_of(vocabulary, [""], 4).tolist() == [[0, 0, 0, 0]]
    long = tokens_of(vocabulary, ["a photo of a ball and a star"], 4)
    assert (long != 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("name", ["train_clipa_small"])
def test_recipes_that_come_with_the_package_are_whole(name):
    recipe = read_recipe(pipeline_folder() / f"{name}.yaml")
    assert recipe.task == "contrastive"
    updates, warmup = updates_of(recipe, 10**9)
    assert 0 < warmup < updates / 5
