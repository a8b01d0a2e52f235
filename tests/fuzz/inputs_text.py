"""Weight files of text models, texts and vocabularies."""

import json
import shutil
from pathlib import Path

import torch

from crate_interp.cli import main
from crate_interp.weights import load_text_model, write_safetensors
from crate_interp.weights.text import TextRecord, create_text_model
from tests.fuzz.frame import Accepted

__all__ = ["evaluate", "load", "make_released", "make_texts"]

REFERENCE = Path(__file__).parents[1] / "reference"
RELEASED = "crate_lm_overcomplete_d48_l2_h3_v97_t32.pt"
SIZES = {"vocabulary": 12, "context": 8, "embed_dim": 12, "depth": 1, "num_heads": 3}
MODEL = "./ours.safetensors"


def make_released(folder: Path) -> None:
    """Write a file of the release."""
    shutil.copy(REFERENCE / RELEASED, folder / "text.pt")


def make_texts(folder: Path) -> None:
    """Write a model of ours, lines of texts, and a vocabulary of the package tokenizers."""
    model = create_text_model("crate_text_mini", **SIZES)
    record = TextRecord("crate_text_mini", SIZES, {"characters": "abcdefghij \n"})
    write_safetensors(folder / MODEL, model.state_dict(), record.to_metadata())
    lines = [json.dumps({"text": text}) for text in ("abc abc", "jig", "a bad face\n")]
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    words = {word: number for number, word in enumerate(["abc", "jig", "a", "bad", "face"])}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "a"},
    }
    (folder / "words.json").write_text(json.dumps(tokenizer))


def load(folder: Path) -> None:
    """Load the file of the release, which says its sizes, and put a text through the model."""
    model = load_text_model("crate_overcomplete_text_base", folder / "text.pt")
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise Accepted(f"NaN or infinity in {name}")
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.long))


def evaluate(folder: Path) -> int:
    """Score the model of ours on the lines, with its own vocabulary and with the other one."""
    arguments = ["evaluate-text", "lines.jsonl", "--model", MODEL, "--device", "cpu"]
    code = main(arguments)
    return code or main([*arguments, "--tokenizer", str(folder / "words.json")])
