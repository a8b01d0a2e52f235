"""Texts as Hugging Face keeps them: Parquet and Arrow files, in folders and on the hub."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crate_interp.data.hub_texts import fetch_hub_texts
from crate_interp.data.texts import join_tokens, list_texts, read_texts
from crate_interp.data.vocabulary import CharacterVocabulary, WordVocabulary
from crate_interp.errors import InputError
from tests.weights.hub_stand_in import running_hub

pa = pytest.importorskip("pyarrow", reason="reads Parquet and Arrow")
pq = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")

TEXTS = ["ab", "", "c\n"]


def write(path, columns, kind=None):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if kind is not None:
        table = table.cast(pa.schema([(name, kind) for name in columns]))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("columns", [{"id": [1, 2, 3], "text": TEXTS}, {"sentence": TEXTS}])
def test_rows_are_texts(suffix, columns, tmp_path, monkeypatch):
    monkeypatch.setattr("crate_interp.data.text_tables._ROWS", 2)
    path = write(tmp_path / f"a{suffix}", columns)
    assert list(read_texts(path)) == TEXTS
    assert list(read_texts(path, join_rows=True)) == ["ab\n\nc\n"]
    assert join_tokens(path, CharacterVocabulary("\nabc")).tolist() == [1, 2, 3, 0]
    if suffix == ".arrow":
        path.write_bytes(path.read_bytes())  # what is read in place can still be replaced


def test_a_text_ends_with_the_end_of_its_row_and_large_texts_are_texts(tmp_path):
    path = write(tmp_path / "a.parquet", {"text": ["a b", "b"]}, pa.large_string())
    assert join_tokens(path, WordVocabulary("a b")).tolist() == [1, 2, 0, 2, 0]


@pytest.mark.parametrize(
    ("suffix", "columns", "message"),
    [
        (".parquet", {"text": pa.array([], pa.string())}, "expected a row or more, found none"),
        (".arrow", {"text": pa.array([], pa.string())}, "expected a row or more, found none"),
        (".parquet", {"text": ["a", None]}, "row 1: expected a text, found none"),
        (".parquet", {"a": ["a"], "b": ["b"]}, "expected a column text, .*columns .a, b"),
        (".arrow", {"text": [1]}, "expected a column text, .*found columns .text"),
        (".parquet", b"PAR1", r"expected a \.parquet file, found "),
        (".arrow", b"no table", r"expected an? \.arrow file, found "),
        (".arrow", b"", r"expected an? \.arrow file, found "),
    ],
)
def test_files_without_texts_are_refused(suffix, columns, message, tmp_path):
    path = tmp_path / f"a{suffix}"
    if isinstance(columns, bytes):
        path.write_bytes(columns)
    else:
        write(path, columns)
    with pytest.raises(InputError, match=rf"a\{suffix}: {message}"):
        join_tokens(path, CharacterVocabulary("a"))


@pytest.mark.parametrize("ends", [(0, 1 << 30, 2), (0, 2, -5), (0, 1, 1 << 20)])
def test_texts_that_lie_outside_of_their_file_are_refused(ends, tmp_path):
    path = write(tmp_path / "a.arrow", {"text": ["q", "z"]})
    content, places = path.read_bytes(), np.array([0, 1, 2], np.int32).tobytes()
    before, _, after = content.rpartition(places)
    path.write_bytes(before + np.array(ends, np.int32).tobytes() + after)
    with pytest.raises(InputError, match=r"a\.arrow: expected a \.arrow file, found "):
        list(read_texts(path))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_of_columns_of_one_name_none_is_chosen(suffix, tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    with pytest.raises(InputError, match=r"single column of texts, found .*text, text"):
        list(read_texts(write(tmp_path / f"a{suffix}", table)))


def test_without_pyarrow_the_extra_is_named(monkeypatch, tmp_path):
    path = write(tmp_path / "a.parquet", {"text": TEXTS})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'crate-interp\[parquet\]'"):
        list(read_texts(path))


def test_splits_of_folders_are_found_as_hugging_face_names_them(tmp_path):
    for name in (
        "data/train-00000-of-00002",
        "data/train-00001-of-00002",
        "data/test-00000-of-00001",
    ):
        write(tmp_path / f"clone/{name}.parquet", {"text": TEXTS})
    for name in ("train/data-00000-of-00001", "train/cache-123", "test/data-00000-of-00001"):
        write(tmp_path / f"saved/{name}.arrow", {"text": TEXTS})
    found = list_texts(tmp_path / "clone", "train")
    assert [path.name[:11] for path in found] == ["train-00000", "train-00001"]
    assert len(list_texts(tmp_path / "saved", "train")) == 1
    assert len(list_texts(tmp_path / "saved")) == 2
    with pytest.raises(InputError, match="expected a folder validation, or files such as"):
        list_texts(tmp_path / "clone", "validation")


# Where the hub is, is read when huggingface_hub is imported, so that it takes a process of its own.
FETCH = """
import json, sys
from crate_interp.data.texts import read_texts, text_files
from crate_interp.errors import InputError

found = {}
for name in sys.argv[1:]:
    try:
        found[name] = [text for file in text_files(name) for text in read_texts(file)]
    except InputError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def parquet_of(*texts):
    content = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), content)
    return content.getvalue()


def test_data_sets_of_the_hub_are_fetched_as_parquet(tmp_path):
    files = {
        "plain/train-00000-of-00002.parquet": parquet_of("a"),
        "plain/train-00001-of-00002.parquet": parquet_of("b", "c"),
        "plain/test-00000-of-00001.parquet": parquet_of("d"),
    }
    expected = {
        "hf:me/one:train": ["a", "b", "c"],
        "hf:me/one": ["d", "a", "b", "c"],
        "hf:me/two/first:train": ["e"],
        "hf:me/lines:test": ["f"],  # as the hub has converted it
        "hf:me/one:validation": "hf:me/one:validation: expected Parquet files of the split",
        "hf:me/two:train": "hf:me/two:train: expected a folder, as it has several data sets",
        "hf:me/none": "hf:me/none: cannot be fetched: ",
    }
    with running_hub() as hub:
        hub.repositories |= {
            "datasets/me/one@main": {**files, "README.md": b""},
            "datasets/me/two@main": {
                f"{name}/train-00000-of-00001.parquet": parquet_of("e")
                for name in ("first", "second")
            },
            "datasets/me/lines@main": {"test.jsonl": b""},
            "datasets/me/lines@branch-parquet": {"default/test/0000.parquet": parquet_of("f")},
        }
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        found, _ = fetched(environment, expected)
    for name, texts in expected.items():
        assert found[name] == texts if isinstance(texts, list) else found[name].startswith(texts)
    # The hub has gone.
    cached = ["hf:me/one:train", "hf:me/two/first:train", "hf:me/one:validation", "hf:me/none"]
    for offline in ("0", "1"):
        again, said = fetched({**environment, "HF_HUB_OFFLINE": offline}, cached)
        assert again["hf:me/one:train"] == ["a", "b", "c"]
        assert again["hf:me/two/first:train"] == ["e"]
        assert "expected Parquet files of the split validation" in again["hf:me/one:validation"]
        assert again["hf:me/none"].startswith("hf:me/none: cannot be fetched: ")
        assert "hf:me/two/first:train: the hub cannot be reached; read from its cache: fir" in said


def fetched(environment, names):
    """Texts of data sets, or what is wrong with them, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("name", ["hf:", "hf:me", "hf:me/one:", "hf:me/one:a:b"])
def test_what_names_no_data_set_is_refused(name):
    with pytest.raises(InputError, match=r"expected hf:USER/NAME\[/FOLDER\]\[:SPLIT\], found"):
        fetch_hub_texts(name)
