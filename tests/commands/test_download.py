"""The command `download`: its list, its words, and that it fetches."""

import hashlib
import io
import zipfile

import pytest

from crate_interp.commands.download import Download
from crate_interp.data.download import DATASETS, Archive
from crate_interp.errors import InputError


def test_list_says_what_goes_where_and_what_is_here(tmp_path, capsys):
    annotations = tmp_path / "coco" / "annotations"
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    annotations.mkdir()
    (annotations / "instances_val2017.json").touch()
    assert Download(list=True, root=tmp_path).run() == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    folder = str(tmp_path / "coco")
    assert lines["coco-val2017"] == ["coco-val2017", "1.1", "GB", "no", folder]
    assert lines["coco-train2017"] == ["coco-train2017", "19.6", "GB", "no", folder]
    assert "demo" in lines
    for number in range(5000):
        (tmp_path / "coco" / "val2017" / f"{number}.jpg").touch()
    Download(list=True, root=tmp_path).run()
    assert "coco-val2017        1.1 GB  yes" in capsys.readouterr().out


def test_a_data_set_is_fetched_and_named(tmp_path, monkeypatch, capsys):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("small/1.jpg", b"picture")
    content = buffer.getvalue()
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(
        DATASETS, "small", (Archive("small.zip", md5, len(content), "small", "*.jpg", 1),)
    )
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "small.zip").write_bytes(content)  # as if it were fetched already
    assert Download(name="small", root=tmp_path).run() == 0
    assert f"small is in {folder}" in capsys.readouterr().out
    assert (folder / "small" / "1.jpg").read_bytes() == b"picture"


def test_unknown_and_missing_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="no data set is called 'coco'"):
        Download(name="coco", root=tmp_path).run()
    with pytest.raises(InputError, match="name a data set"):
        Download()
