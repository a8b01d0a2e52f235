"""The command `atlas --text`."""

import json

import numpy as np
import pytest
import torch

from crate_interp.cli import main
from crate_interp.weights import write_safetensors
from crate_interp.weights.text import TextRecord, create_text_model

TINY = {"vocabulary": 4, "context": 5, "embed_dim": 12, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = create_text_model("crate_alpha_text_mini", **TINY)
    model.token_embedding.weight.data.mul_(20)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    record = TextRecord("crate_alpha_text_mini", TINY, {"characters": "<b\nd"})
    write_safetensors(path, model.state_dict(), record.to_metadata())
    return path


def make(model_file, text, output, *options):
    command = ["atlas", "--text", str(text), "--model", str(model_file), "--output", str(output)]
    return main([*command, "--block", "0", *options])


def data_of(output):
    page = (output / "index.html").read_text(encoding="utf-8")
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_page_and_numbers_say_the_same(model_file, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("<bd<\nbd<b\nd<bbd\n<b", encoding="utf-8")  # 18 characters
    output = tmp_path / "atlas"
    assert make(model_file, text, output, "--around", "2", "--strongest", "2") == 0
    assert "3 windows of 5 tokens, 48 atoms" in capsys.readouterr().out
    files = [path.name for path in output.iterdir() if path.name[0] != "."]
    assert sorted(files) == ["atlas.npz", "index.html"]
    with np.load(output / "atlas.npz") as numbers:
        arrays = dict(numbers)
    about = json.loads(str(arrays["about"]))
    assert (about["format"], about["site"], about["block"]) == ("tokens 1", "codes", 0)
    data = data_of(output)
    assert data["classes"] == ["<", "b", "\u21b5", "d"]
    assert len(data["atoms"]) == 48
    content = text.read_text(encoding="utf-8")
    shown = 0
    for entry in data["atoms"]:
        atom = entry["atom"]
        for rank, (place, value, middle, pieces, levels) in enumerate(entry["contexts"]):
            window, token = arrays["top_images"][atom, rank], arrays["top_patches"][atom, rank]
            assert place == f"window {window}, token {token}"
            assert value == pytest.approx(arrays["top_values"][atom, rank], rel=0.01)
            start = 5 * window + token - middle
            assert "".join(pieces) == content[start : start + len(pieces)]
            assert len(levels) == len(pieces)
            assert rank or levels[middle] == "9"
            shown += 1
    assert shown > 48
    assert "<b" not in (output / "index.html").read_text(encoding="utf-8").split('id="data">')[1]


def test_windows_are_limited_and_an_atlas_is_replaced(model_file, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("<bd<\nbd<b\nd<", encoding="utf-8")
    assert make(model_file, text, tmp_path / "atlas") == 0
    assert make(model_file, text, tmp_path / "atlas", "--limit", "1") == 0
    assert "\n1 windows of 5 tokens" in capsys.readouterr().out
    text.write_text("<b", encoding="utf-8")  # shorter than the context
    assert make(model_file, text, tmp_path / "atlas") == 0
    assert "1 windows of 2 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", (), "expected a text, found an empty file"),
        ("abc", (), "character 'a' at 0"),
        ("<b", ("--block", "2"), "block"),
        ("<b", ("--around", "501"), "around: expected a number of at most 500"),
        ("<b", ("--tokenizer", "none.json"), "none.json"),
    ],
)
def test_what_cannot_be_made_an_atlas_of_is_refused(
    content, options, message, model_file, tmp_path, capsys
):
    text = tmp_path / "text.txt"
    text.write_text(content, encoding="utf-8")
    assert make(model_file, text, tmp_path / "atlas", *options) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "atlas" / "index.html").exists()


def test_a_folder_of_something_else_is_left_alone(model_file, tmp_path, capsys):
    (tmp_path / "own.txt").write_text("<b", encoding="utf-8")
    assert make(model_file, tmp_path / "own.txt", tmp_path) != 0
    assert "expected an empty folder or an atlas" in capsys.readouterr().err


def test_help_lists_the_options_of_text_models(capsys):
    with pytest.raises(SystemExit):
        main(["atlas", "--text", "shakespeare", "--help"])
    assert "--around" in capsys.readouterr().out
