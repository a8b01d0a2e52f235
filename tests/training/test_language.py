"""Text models are trained by the same loop: windows by number, bit-equal after a stop."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from crate_interp.errors import CheckpointError, InputError
from crate_interp.options.pipelines import pipeline_folder
from crate_interp.training import Recipe, read_recipe, train
from crate_interp.training.objectives.language import Language
from crate_interp.training.setup import updates_of
from crate_interp.training.sources import Source
from crate_interp.training.text_data import Windows, open_text_data
from crate_interp.weights import load_text_model
from crate_interp.weights.text import load_text_model_with_record, plan_text_model

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 20
TINY = {"context": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


class StoppedError(Exception):
    pass


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return {
        "model": "crate_overcomplete_text_mini",
        "task": "language",
        "model_args": TINY,
        "data": str(tmp_path / "text.txt"),
        "held_out": 0.2,
        "batch_size": 4,
        "steps": 6,
        "learning_rate": 0.01,
        "workers": 0,
        "log_every": 1,
        "save_every": 1,
    }


def run(settings, folder, stop_at=None):
    folder.mkdir(exist_ok=True)
    losses = []

    def report(metrics, _):
        losses.append(metrics.loss)
        if metrics.step == stop_at:
            raise StoppedError

    return train(Recipe(**settings), folder, report), losses


def test_a_run_that_was_stopped_ends_as_one_that_was_not(settings, tmp_path):
    whole, losses = run(settings, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run({**settings, "workers": 1}, tmp_path / "parts", stop_at=4)
    parts, rest = run(settings, tmp_path / "parts")
    assert parts == whole
    assert rest == losses[3:]  # the update that was reported last had not been saved
    assert losses[-1] < losses[0]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    record = json.loads((tmp_path / "whole" / "data.json").read_text())
    assert (record["files"], record["tokens"], record["validation"]) == (1, 832, 208)


@pytest.mark.parametrize("model", ["crate_text_mini", "crate_alpha_text_mini", "gpt_text_mini"])
def test_every_model_is_trained_and_its_file_read(settings, tmp_path, model):
    result, _ = run({**settings, "model": model, "steps": 2, "accumulation": 2}, tmp_path / "run")
    again, record = load_text_model_with_record(tmp_path / "run" / "model.safetensors")
    assert again.sizes == {**TINY, "vocabulary": 15}
    assert record.vocabulary == {"characters": "".join(sorted(set(TEXT)))}
    data = open_text_data(Recipe(**settings), 8)
    windows = np.stack([data.validation[number][0] for number in range(len(data.validation))])
    with torch.no_grad():
        logits = again(torch.from_numpy(windows[:, :-1])).flatten(0, 1)
    loss = F.cross_entropy(logits, torch.from_numpy(windows[:, 1:]).flatten())
    assert result.validation_loss == pytest.approx(loss.item(), abs=1e-5)


def test_windows_follow_from_their_number(settings):
    tokens = np.arange(30, dtype=np.uint16)
    drawn = Windows(tokens, 8, drawn=(3, 100))
    starts = set()
    for number in range(100):
        window, _ = drawn[number]
        assert window.dtype == np.int64
        assert np.array_equal(window, window[0] + np.arange(9))
        assert np.array_equal(window, drawn[number][0])
        starts.add(int(window[0]))
    assert (min(starts), max(starts)) == (0, 21)
    in_order = Windows(tokens, 8)
    assert [int(in_order[number][0][0]) for number in range(len(in_order))] == [0, 8, 16]
    assert (len(drawn), drawn.endless, in_order.endless) == (100, True, False)
    assert len(Windows(np.arange(9), 8)) == 1


def test_the_end_of_each_file_is_held_out_and_splits_are_found(settings, tmp_path):
    for name, text in (
        ("a.train.txt", "a" * 30),
        ("b.train.txt", "b" * 30),
        ("valid.txt", "ab" * 9),
    ):
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    base = {**settings, "data": "folder", "data_root": str(tmp_path)}
    data = open_text_data(Recipe(**base), 8)
    assert data.training.tokens.tolist() == [0] * 24 + [1] * 24 + [0, 1] * 7 + [0]
    assert data.validation.tokens.tolist() == [0] * 6 + [1] * 6 + [1, 0, 1]
    split = {**base, "held_out": None, "validation_split": "valid"}
    data = open_text_data(Recipe(**split), 8)
    assert (len(data.training.tokens), len(data.validation.tokens)) == (60, 18)
    assert open_text_data(Recipe(**{**split, "validation_split": None}), 8).validation is None


def test_tables_of_hugging_face_are_texts_by_their_splits(settings, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split, texts in (("train", ["a" * 9, "b" * 9]), ("validation", ["ab" * 9])):
        path = tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pa.table({"text": texts}), path)
    changes = {"data": str(tmp_path / "set"), "held_out": None}
    data = open_text_data(Recipe(**{**settings, **changes}), 8)
    assert data.training.tokens.tolist() == [0] * 9 + [1] * 9
    assert data.validation.tokens.tolist() == [0, 1] * 9
    assert data.files == 2


def test_texts_of_a_file_are_parted_by_the_token_of_the_end(settings, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, "a": 1, "<|endoftext|>": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "t.jsonl").write_text('{"text": "a a"}\n{"text": "a b a"}\n')
    changes = {"tokenizer": str(tmp_path / "tokenizer.json"), "data": str(tmp_path / "t.jsonl")}
    recipe = Recipe(**{**settings, **changes, "held_out": None, "validation_split": None})
    assert open_text_data(recipe, 4).training.tokens.tolist() == [1, 1, 2, 1, 0, 1, 2]
    (tmp_path / "t.bin").write_bytes(np.array([1, 1, 2, 1, 1], "<u2").tobytes())
    numbers = dataclasses.replace(recipe, data=str(tmp_path / "t.bin"))
    assert open_text_data(numbers, 4).training.tokens.tolist() == [1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gpt_text"}, "unknown text model 'gpt_text'"),
        ({"model": "crate_demo"}, "unknown text model 'crate_demo'"),
        ({"model_args": {"context": 900}}, "training: expected more than the context of 900.* 832"),
        ({"model_args": {"context": 300}}, "validation: expected more than the context of 300"),
        ({"model_args": {"vocabulary": 5}}, "model_args: expected sizes, found vocabulary"),
        ({"data": "scenes"}, "scenes: expected a text file, a folder"),
        ({"data": (Source("a", "a"),)}, "found several sources"),
        ({"held_out": None}, "a file has no split validation: give held_out"),
        (
            {"held_out": None, "data": "hf:me/one:train"},
            "data hf:me/one:train: a split has no split validation: give held_out",
        ),
        ({"data": "hf:one"}, r"expected hf:USER/NAME\[/FOLDER\]\[:SPLIT\], found 'hf:one'"),
        ({"probe_every": 2}, "probe_every: expected it left out .* task language, found 2"),
        ({"steps": None, "epochs": 1.0}, r"epochs: expected it left out .* found 1\.0"),
        ({"tokenizer": "none.json"}, r"none\.json: "),
        ({"task": "classification", "tokenizer": "gpt2"}, "tokenizer: is for the task language"),
    ],
)
def test_recipes_that_texts_cannot_follow_are_refused(settings, changes, message):
    with pytest.raises(InputError, match=message):
        Language(Recipe(**{**settings, **changes}))


@pytest.mark.parametrize(("content", "message"), [(b"", "empty file"), (b"\xff", "expected UTF-8")])
def test_files_that_hold_no_text_are_refused(settings, tmp_path, content, message):
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"text\.txt: .*{message}"):
        run(settings, tmp_path / "run")


def test_a_run_goes_on_with_its_own_text_alone(settings, tmp_path):
    with pytest.raises(StoppedError):
        run(settings, tmp_path / "run", stop_at=2)
    (tmp_path / "text.txt").write_text(TEXT + "end.")
    with pytest.raises(InputError, match=r"a run on other data .*tokens was 832"):
        run(settings, tmp_path / "run")


def test_training_begins_with_the_weights_of_a_file(settings, tmp_path):
    run({**settings, "steps": 1, "save_every": 9}, tmp_path / "first")
    file = tmp_path / "first" / "model.safetensors"
    model = Language(Recipe(**settings, initial_weights=str(file))).build_model()
    for name, value in load_text_model(file).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    (tmp_path / "text.txt").write_text(TEXT + "?")
    with pytest.raises(
        CheckpointError,
        match=r"its text model does not fit: .*token_embedding.weight: expected \(16, 16\)",
    ):
        Language(Recipe(**settings, initial_weights=str(file))).build_model()


@pytest.mark.parametrize("name", ["train_text_mini", "train_text_owt"])
def test_recipes_that_come_with_the_package_are_whole(name):
    recipe = read_recipe(pipeline_folder() / f"{name}.yaml")
    assert recipe.task == "language"
    planned = plan_text_model(recipe.model, **recipe.model_args)
    assert planned.context == (1024 if name.endswith("owt") else 128)
    updates, warmup = updates_of(recipe, 10**9)
    assert 0 < warmup < updates / 5
