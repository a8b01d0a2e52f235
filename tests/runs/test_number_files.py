"""Numbers that commands write say what they were made of."""

import csv
import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from crate_interp import InputError
from crate_interp.cli import main
from crate_interp.runs import number_files
from crate_interp.runs.number_files import write_arrays, write_table
from crate_interp.weights import resolve_weights, weights_checksum

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def made(command, pictures, output, *options):
    common = ["--model", "demo", "--size", "24", "--workers", "0", "--device", "cpu"]
    assert main([command, str(pictures), *common, "--output", str(output), *options]) == 0


@pytest.mark.parametrize(
    ("command", "output", "files", "options"),
    [
        ("pca", "figure.png", ["figure.npz"], ["--foreground", "0.4"]),
        (
            "attention",
            ".",
            ["a.npz", "b.npz", "curves.json", "rollout.json", "agreement.json"],
            ["--figure", "curves", "semantics"],
        ),
        ("ablate", ".", ["ablation.npz", "ablation.json"], ["--block", "1"]),
        ("attribute", "figure.png", ["figure.npz"], ["--steps", "2"]),
        ("layers", "figure.png", ["figure.json"], []),
    ],
)
def test_numbers_name_weights_settings_and_versions(
    pictures, tmp_path, command, output, files, options
):
    if command == "attribute":
        pytest.importorskip("captum", reason="needs the extra attribution")
    made(command, pictures, tmp_path / output, *options)
    for name in files:
        if name.endswith(".npz"):
            with np.load(tmp_path / name, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
        else:
            assert (tmp_path / name).with_suffix(".csv").is_file()
            about = json.loads((tmp_path / name).read_text())
            about = about["models"][0] if command == "layers" else about
        file = resolve_weights("demo")
        assert about["weights"] == {"file": file.name, "sha256": weights_checksum(file)}
        settings = about["settings"]
        assert settings["model"].startswith("crate_alpha_demo")
        assert (settings["size"], settings["device"]) == (24, "cpu")
        assert settings["precision"] != "auto"
        assert settings["images"] == [str(pictures)]
        if options[0:1] == ["--block"]:
            assert settings["block"] == 1
        assert about["versions"]["numpy"] == np.__version__


def test_profile_and_atoms_have_a_record_beside_the_table(pictures, tmp_path):
    table = tmp_path / "profile.csv"
    options = ["--size", "32", "--batch-size", "1", "--output", str(table), "--device", "cpu"]
    assert main(["profile", "demo", *options]) == 0
    about = json.loads(table.with_suffix(".json").read_text())
    assert about["weights"]["sha256"] is None
    assert about["settings"]["size"] == 32
    made("atlas", pictures, tmp_path / "atlas", "--sheet", "0", "--weights", "random")
    command = ["atoms", str(pictures / "a.png"), "--atlas", str(tmp_path / "atlas")]
    assert main([*command, "--output", str(tmp_path / "atoms.png"), "--patch", "3,5"]) == 0
    about = json.loads((tmp_path / "atoms.json").read_text())
    assert about["settings"]["model"] == "crate_alpha_demo (untrained)"
    assert about["settings"]["patch"] == "3,5"


def test_a_table_reads_back(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_table(path, ("name", "value"), [("a, b", 1.5), ('"', 2)], {"weights": None})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "value"], ["a, b", "1.5"], ['"', "2"]]
    assert json.loads(path.with_suffix(".json").read_text()) == {"weights": None}


def test_a_full_disk_leaves_the_file_before_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "numbers.npz"
    write_arrays(path, {"a": np.arange(3)}, {})
    before = path.read_bytes()

    def full(file, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(number_files.np, "savez_compressed", full)
    with pytest.raises(InputError, match=r"numbers\.npz: cannot be written: No space left"):
        write_arrays(path, {"a": np.arange(4)}, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["numbers.npz"]
