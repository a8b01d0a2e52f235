"""The table of models: what it says of sizes, weights and this machine."""

import re

import huggingface_hub
import pytest

from crate_interp.commands.models import Models
from crate_interp.errors import InputError
from crate_interp.weights.names import ALIASES, our_architectures


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def table(capsys, pattern: str | None) -> list[list[str]]:
    assert Models(pattern).run() == 0
    lines = capsys.readouterr().out.splitlines()
    return [re.split(r" {2,}", line) for line in lines]


def test_models_lists_ours_and_every_alias(capsys):
    heading, *rows = table(capsys, None)
    assert heading[:5] == ["MODEL", "ALIAS", "PARAMETERS", "PATCH", "INPUT"]
    names = [row[0] for row in rows]
    assert len(names) == len(set(names))
    assert {name.partition(".")[0] for name in names} >= set(our_architectures())
    assert set(ALIASES.values()) <= set(names)
    assert not [name for name in names if name.startswith("deit")]


def test_models_prints_the_published_sizes(capsys):
    _, row = table(capsys, "crate_alpha_L8")
    assert row == [
        "crate_alpha_large_patch8_224.in1k",
        "crate_alpha_L8",
        "253.79 M",
        "8x8",
        "224x224",
        "1000",
        "no",
        "hub UCSC-VLAA/CRATE-alpha, 2538 MB",
    ]


def test_models_lists_naflexvit_by_the_size_of_its_weights(capsys):
    _, row = table(capsys, "naflexvit_base_patch16_gap")
    assert row[0].partition(".")[0] == "naflexvit_base_patch16_gap"
    assert row[1:4] == ["86.63 M", "16x16", "384x384"]  # no alias


def test_models_lists_text_models_by_their_context(capsys):
    _, *rows = table(capsys, "*_text_base")
    assert [row[0] for row in rows] == [
        *("crate_text_base", "crate_overcomplete_text_base"),
        *("crate_alpha_text_base", "gpt_text_base"),
    ]
    assert rows[0][1:] == ["60.66 M", "-", "1024 tokens", "50257", "-", "-"]
    place = "hub JackBAI/CRATE-GPT-12L-Pile-600000steps, 983 MB"
    assert rows[1][1:] == ["81.90 M", "-", "1024 tokens", "50257", "no", place]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("crate_alpha_large_patch8_224", {"in1k", "in21k"}),
        ("CRATE_ALPHA_LARGE_patch8_*.in21k", {"in21k"}),
        ("dino_vit?8", {"dino"}),
        ("vit_small_patch8_224", {"dino"}),
        ("vit_S8", {""}),
    ],
)
def test_models_matches_names_tags_and_aliases(capsys, pattern, names):
    _, *rows = table(capsys, pattern)
    assert {row[0].partition(".")[2] for row in rows} == names


def test_models_says_what_is_on_this_machine(capsys, empty_cache):
    _, before = table(capsys, "dino_vits8")
    assert before[-2:] == ["no", "hub timm/vit_small_patch8_224.dino"]
    repository = empty_cache / "models--timm--vit_small_patch8_224.dino"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(b"weights")
    _, after = table(capsys, "dino_vits8")
    assert after[-2:] == ["yes", "hub timm/vit_small_patch8_224.dino"]
    _, without_weights = table(capsys, "vit_S8")
    assert without_weights[-2:] == ["-", "-"]
    _, by_hand = table(capsys, "crate_S16")
    assert by_hand[-2] == "no"
    assert by_hand[-1].startswith("by hand: https://")


@pytest.mark.parametrize("pattern", ["crate_alpa_*", "", "resnet50"])
def test_models_refuses_a_pattern_that_matches_nothing(pattern):
    with pytest.raises(InputError, match=r"no model matches .*nearest:"):
        Models(pattern).run()
