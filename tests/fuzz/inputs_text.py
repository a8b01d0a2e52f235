"""Weight files of text models, texts, captions and vocabularies."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from crate_interp.cli import main
from crate_interp.data.texts import read_texts
from crate_interp.training.caption_readers import CaptionShards, CaptionTable
from crate_interp.weights import load_text_model, write_safetensors
from crate_interp.weights.text import TextRecord, create_text_model
from tests.fuzz.frame import Accepted

__all__ = [
    "evaluate",
    "load",
    "make_captions",
    "make_released",
    "make_tables",
    "make_texts",
    "read_captions",
    "read_tables",
]

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


def make_tables(folder: Path) -> None:
    """Write texts as Parquet and as Arrow, each in several parts."""
    pa = pytest.importorskip("pyarrow", reason="writes tables")
    parquet = pytest.importorskip("pyarrow.parquet", reason="writes Parquet")
    table = pa.table({"id": range(40), "text": [f"text {number} " * 5 for number in range(40)]})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=10)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=10)


def make_captions(folder: Path) -> None:
    """Write a table of captions, and a shard of images with theirs."""
    (folder / "pairs.csv").write_text('path,caption\na.png,"a, b"\nb.png,c\n')
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, content in (
            ("0.png", b"no image"),
            ("0.txt", b"a"),
            ("1.png", b""),
            ("1.txt", b"b"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read_tables(folder: Path) -> None:
    """Read the texts of both tables."""
    for path in (folder / "rows.parquet", folder / "rows.arrow"):
        for text in read_texts(path):
            text.encode()


def read_captions(folder: Path) -> None:
    """Read the captions of the table and of the shard."""
    for reader in (CaptionTable(folder / "pairs.csv"), CaptionShards(folder, "00000.tar")):
        for number in range(len(reader)):
            reader.caption(number)


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
