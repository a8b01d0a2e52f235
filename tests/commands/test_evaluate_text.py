"""evaluate-text: loss and perplexity, against a plain loop over the tokens."""

import json

import numpy as np
import pytest
import torch

from crate_interp.cli import main
from crate_interp.errors import InputError
from crate_interp.evaluation import score_texts
from crate_interp.weights import write_safetensors
from crate_interp.weights.text import TextRecord, create_text_model

TINY = {"vocabulary": 4, "context": 5, "embed_dim": 12, "depth": 1, "num_heads": 3}
TEXTS = ["abcabdabcab", "a", "ab", "dcbad"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_text_model("crate_alpha_text_mini", **TINY)
    model.token_embedding.weight.data.mul_(20)  # so that the loss is not that of a guess
    return model


@pytest.fixture
def model_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    record = TextRecord("crate_alpha_text_mini", TINY, {"characters": "abcd"})
    write_safetensors(path, model.state_dict(), record.to_metadata())
    return path


def plain_losses(model, text):
    """Loss of each token but the first, from those before it in its window."""
    tokens = torch.tensor(["abcd".index(character) for character in text])
    for number in range(1, len(tokens)):
        start = (number - 1) // TINY["context"] * TINY["context"]
        with torch.no_grad():
            logits = model(tokens[None, start:number])[0, -1]
        yield -logits.log_softmax(-1)[tokens[number]].item()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_loss_is_that_of_a_plain_loop(model, batch_size):
    numbers = [np.array(["abcd".index(character) for character in text]) for text in TEXTS]
    score = score_texts(model, numbers, batch_size)
    losses = [loss for text in TEXTS for loss in plain_losses(model, text)]
    assert (score.texts, score.tokens) == (4, len(losses)) == (4, 15)
    assert score.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert score.perplexity == pytest.approx(np.exp(np.mean(losses)), abs=1e-4)
    for texts in ([], [np.array([1])], [np.array([], np.int64)]):
        with pytest.raises(InputError, match="a text of two tokens or more"):
            score_texts(model, texts)


def test_files_lines_and_folders_are_rows_of_a_table(model, model_file, tmp_path, capsys):
    lines = tmp_path / "lambada.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    plain = tmp_path / "ptb.test.txt"
    plain.write_text(TEXTS[0])
    output = tmp_path / "out" / "scores.json"
    texts = [str(lines), str(folder), str(plain)]
    options = ["--model", str(model_file), "--output", str(output), "--device", "cpu"]
    assert main(["evaluate-text", *texts, *options]) == 0
    result = json.loads(output.read_text())
    rows = result["texts"]
    assert list(rows) == texts
    assert rows[texts[0]] == rows[texts[1]]
    assert (rows[texts[0]]["texts"], rows[texts[0]]["tokens"]) == (4, 15)
    expected = np.mean(list(plain_losses(model, TEXTS[0])))
    assert rows[texts[2]]["loss"] == pytest.approx(expected, abs=1e-5)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["TEXT", "TEXTS", "TOKENS", "LOSS", "PERPLEXITY"]
    assert printed[3].split()[-2:] == [f"{expected:.4f}", f"{np.exp(expected):.4g}"]
    assert main(["compare", str(output), str(output)]) == 0
    assert "ptb.test.txt loss" in capsys.readouterr().out


def test_rows_are_joined_to_one_text_if_asked(model, tmp_path, capsys):
    lines = tmp_path / "wiki.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("ab\n", "", "ba")))
    path, result = tmp_path / "model.safetensors", tmp_path / "result.json"
    record = TextRecord("crate_alpha_text_mini", TINY, {"characters": "ab\n "})
    write_safetensors(path, model.state_dict(), record.to_metadata())
    options = ["--model", str(path), "--device", "cpu", "--output", str(result)]
    counts = []
    for joined in ([], ["--join-rows"]):
        assert main(["evaluate-text", str(lines), *options, *joined]) == 0
        row = json.loads(result.read_text())["texts"][str(lines)]
        counts.append((row["texts"], row["tokens"]))
    assert counts == [(3, 3), (1, 6)]  # "ab\n" + "\n" + "ba\n"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", [], "t.txt: expected a text, found an empty file"),
        ("a", [], "t.txt: expected a text of two tokens or more"),
        ("abe", [], "t.txt: character 'e' at 2"),
        ("ab", ["--tokenizer", "none.json"], "none.json: "),
        ("ab", ["--tokenizer", "no.json"], "--tokenizer no.json: "),
        ("ab", ["--weights", "random"], "it cannot take"),
        ("ab", ["--model", "crate_text_mini"], "no weights are published for crate_text_mini"),
        ("ab", ["--model", "crate_demo"], "unknown text model 'crate_demo'"),
        (
            "ab",
            ["--model", "crate_text_mini", "--weights", "random"],
            "its vocabulary is not known: give --tokenizer",
        ),
        ("ab", ["--model-args", '{"context": 3}'], "pos_embed: expected (3, 12), found (5, 12)"),
    ],
)
def test_what_cannot_be_scored_is_refused(content, options, message, model_file, tmp_path, capsys):
    text = tmp_path / "t.txt"
    text.write_text(content)
    arguments = ["evaluate-text", str(text), "--device", "cpu"]
    if "--model" not in options:
        options = ["--model", str(model_file), *options]
    assert main([*arguments, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_vocabulary_larger_than_the_models_is_refused(model_file, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate("abcde")}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    made.save(str(tmp_path / "tokenizer.json"))
    options = ["--model", str(model_file), "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert main(["evaluate-text", "shakespeare", *options, "--device", "cpu"]) == 2
    assert "expected at most the 4 tokens of the model, found 5" in capsys.readouterr().err


def test_a_damaged_vocabulary_is_named_with_its_file(model, tmp_path, capsys):
    record = TextRecord("crate_alpha_text_mini", TINY, {"characters": "aa"})
    write_safetensors(tmp_path / "bad.safetensors", model.state_dict(), record.to_metadata())
    options = ["--model", str(tmp_path / "bad.safetensors"), "--device", "cpu"]
    assert main(["evaluate-text", "shakespeare", *options]) == 2
    assert "bad.safetensors: vocabulary: expected characters, each once" in capsys.readouterr().err
