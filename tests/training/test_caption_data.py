"""Captioned images of shards and tables: what is read, a run on them, refusals."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from crate_interp.errors import InputError
from crate_interp.options.pipelines import pipeline_folder
from crate_interp.training import Recipe, read_recipe, train
from crate_interp.training.objectives.contrastive import Contrastive
from crate_interp.weights import load_clip
from crate_interp.weights.clip import tokens_of
from tests.training.test_contrastive import SETTINGS, StoppedError

CAPTIONS = ["A red star", "two balls,\nblue", "", "star of \u00e9toile", "ball", "a box"]


def picture(number):
    pixels = np.full((20, 24, 3), 40 * number, np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_shard(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    for shard in range(2):
        files = {}
        for number in range(3 * shard, 3 * shard + 3):
            files |= {f"{number}.json": b"{}", f"{number}.txt": f" {CAPTIONS[number]}\n".encode()}
            files[f"{number}.png"] = picture(number)
        write_shard(tmp_path / "shards" / f"{shard:05}.tar", files)
    return {"data": "wds/shards", "train_split": "{00000..00001}.tar", "data_root": str(tmp_path)}


@pytest.fixture(params=["csv", "tsv"])
def table(request, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(picture(number))
    comma, names = {"csv": (",", "id,path,caption"), "tsv": ("\t", "title\tfilepath")}[
        request.param
    ]
    rows = [names]
    for number, caption in enumerate(CAPTIONS):
        path, caption = f"pictures/{number}.png", f'"{caption}"'
        rows.append(comma.join([str(number), path, caption] if comma == "," else [caption, path]))
    place = tmp_path / f"pairs.{request.param}"
    place.write_text("\r\n".join(rows) + "\r\n\r\n", encoding="utf-8", newline="")
    return {"data": str(place)}


def recipe_of(changes, **others):
    base = {**SETTINGS, "scene_objects": (1, 3), "batch_size": 3, "validation_split": None}
    return Recipe(**{**base, **changes, **others})


def check_pairs(objective):
    training = objective.data.training
    assert (len(training), training.endless, objective.data.validation) == (6, False, None)
    for number, caption in enumerate(CAPTIONS):
        (image, text), label = training[number]
        assert (text, label, image.mode, image.size) == (caption, -1, "RGB", (24, 20))
        assert np.array(image).max() == np.array(image).min() == 40 * number
    vocabulary = objective.data.vocabulary
    assert vocabulary.record["words"] == "a ball balls blue box of red star two \u00e9toile"
    _, target = objective.view(training[1][0], -1, lambda picture: picture)
    assert target[1:].tolist() == tokens_of(vocabulary, [CAPTIONS[1]], 16)[0].tolist()


def test_shards_give_each_image_with_its_caption(shards):
    objective = Contrastive(recipe_of(shards))
    check_pairs(objective)
    record = objective.data.record
    assert record["pictures"] == 6
    fewer = Contrastive(recipe_of(shards, train_split="00000.tar")).data.record
    assert fewer["names_sha256"] != record["names_sha256"]


def test_tables_give_each_image_with_its_caption(table):
    check_pairs(Contrastive(recipe_of(table)))


def test_a_vocabulary_of_a_file_is_that_of_the_captions(shards, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "ball": 1, "?": 2}, "?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    objective = Contrastive(recipe_of(shards, tokenizer=str(tmp_path / "tokenizer.json")))
    _, target = objective.view(objective.data.training[4][0], -1, lambda picture: picture)
    assert target[1:4].tolist() == [1, 0, 0]
    assert objective.build_model().text.token_embedding.num_embeddings == 3


def test_a_run_that_was_stopped_ends_as_one_that_was_not(shards, tmp_path):
    def run(folder, stop_at=None):
        def report(metrics, _):
            if metrics.step == stop_at:
                raise StoppedError

        folder.mkdir(exist_ok=True)
        return train(recipe_of(shards, steps=3), folder, report)

    run(tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", stop_at=2)
    run(tmp_path / "parts")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert json.loads((tmp_path / "whole" / "data.json").read_text())["pictures"] == 6
    model = load_clip(tmp_path / "whole" / "model.safetensors")
    assert model.classify(torch.randn(2, 3, 32, 32), ["a star", "a ball"]).shape == (2, 2)


def test_an_unreadable_image_is_named_or_skipped(table, tmp_path, caplog):
    (tmp_path / "pictures" / "2.png").write_bytes(b"no image")
    (tmp_path / "pictures" / "3.png").unlink()
    with pytest.raises(InputError, match=r"pairs\..sv: pictures/2\.png: not a readable image"):
        Contrastive(recipe_of(table)).data.training[2]
    (_, caption), _ = Contrastive(recipe_of(table, on_error="skip")).data.training[2]
    assert caption == CAPTIONS[4]
    assert "pictures/3.png: skipped, not a readable image" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"", "b.txt": b""}, r"00000\.tar: a: no caption, expected \.txt, found png"),
        ({"a.txt": b""}, r"00000\.tar: a: no image, found txt"),
        ({}, r"00000\.tar: no images"),
        ({"a.png": b"", "a.txt": b"\xff"}, r"caption at byte \d+: expected UTF-8, found .* at 0"),
    ],
)
def test_shards_without_pairs_are_refused(files, message, tmp_path):
    write_shard(tmp_path / "00000.tar", files)
    changes = {"data": f"wds/{tmp_path}", "train_split": "00000.tar", "batch_size": 1}
    with pytest.raises(InputError, match=message):
        Contrastive(recipe_of(changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a column filepath or path, found ''"),
        (b"path,text\na.png,a\n", "expected a column title or caption, found 'path, text'"),
        (b"path,title\n", "expected a row of an image or more, found none"),
        (b"path,title\na.png,a\nb.png\n", "line 3: expected 2 cells, found 1"),
        (b"path,title\na.png,\xff\n", "expected UTF-8, found invalid start byte at 17"),
        (b"path,title\na.png,a\n", "1 images are fewer than batch_size 3"),
    ],
)
def test_tables_without_pairs_are_refused(content, message, tmp_path):
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"pairs\.csv.*{message}"):
        Contrastive(recipe_of({"data": str(tmp_path / "pairs.csv")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_split": "validation"}, "validation_split: captioned images have no classes"),
        ({"held_out": 0.5, "validation_split": "validation"}, "validation_split: captioned images"),
        ({"exclude": "list.txt"}, "exclude: captioned images have no classes"),
        ({"train_split": "train"}, "expected the names of shards in .*found 'train'"),
        ({"train_split": "{0..3}.tar"}, "4 of 4 shards missing"),
        ({"data": "wds/none"}, "no folder .*none"),
        ({"data": "none.csv"}, r"none\.csv: "),
        ({"data": "scenes", "tokenizer": "gpt2", "train_split": "train"}, "tokenizer: captions of"),
    ],
)
def test_recipes_that_captions_cannot_follow_are_refused(shards, changes, message):
    with pytest.raises(InputError, match=message):
        Contrastive(recipe_of({**shards, **changes}))


def test_the_recipe_of_datacomp_is_whole():
    recipe = read_recipe(pipeline_folder() / "train_clipa_datacomp.yaml")
    assert (recipe.task, recipe.image_size, recipe.text_args) == ("contrastive", 84, None)
    assert recipe.steps * recipe.batch_size == pytest.approx(1281167 * 2000, rel=1e-4)
    assert recipe.learning_rate == pytest.approx(8e-6 * 128)
