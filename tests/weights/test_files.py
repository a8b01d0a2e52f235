"""Weight files of every kind, whole and broken."""

import argparse
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights.files import read_checkpoint, write_safetensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w", "w.npz", "w.safetensors"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pytorch_file_is_known_by_its_content(name, legacy, tmp_path):
    torch.save(WEIGHTS, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    checkpoint = read_checkpoint(tmp_path / name)
    assert_same(checkpoint.state_dict, WEIGHTS)
    assert (checkpoint.metadata, checkpoint.path) == ({}, tmp_path / name)


def test_pytorch_file_is_mapped_not_copied(tmp_path):
    big = torch.zeros(1 << 20)
    torch.save({"big": big}, tmp_path / "w.pth")
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("what is mapped can be seen on Linux only")
    checkpoint = read_checkpoint(str(tmp_path / "w.pth"))
    storage = checkpoint.state_dict["big"].untyped_storage()
    assert storage.nbytes() == big.nbytes
    assert str(tmp_path / "w.pth") in maps.read_text()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "teacher"])
def test_training_state_beside_the_weights_is_left_aside(wrapper, tmp_path, caplog):
    content = {
        "epoch": 7,
        "arch": "crate",
        wrapper: {f"module.{key}": value for key, value in WEIGHTS.items()},
        "best_acc1": torch.tensor(71.5),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1),
    }
    torch.save(content, tmp_path / "w.pth.tar")
    with caplog.at_level(logging.INFO):
        checkpoint = read_checkpoint(tmp_path / "w.pth.tar")
    assert_same(checkpoint.state_dict, WEIGHTS)
    assert checkpoint.metadata == {"epoch": "7", "arch": "crate", "best_acc1": "71.5"}
    assert "left aside: optimizer, args" in caplog.text


def test_dino_teacher_is_preferred_and_loses_its_prefix(tmp_path):
    teacher = {"module.backbone.a": torch.ones(2), "module.head.mlp.0.weight": torch.ones(1)}
    student = {key: value * 0 for key, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher}, tmp_path / "dino.pth")
    found = read_checkpoint(tmp_path / "dino.pth").state_dict
    assert_same(found, {"a": torch.ones(2), "head.mlp.0.weight": torch.ones(1)})


def test_npz_gives_parameters_only(tmp_path):
    arrays = {"params/a/kernel": np.ones((2, 3), np.float32), "opt/0/mu": np.zeros(3)}
    np.savez(tmp_path / "w.npz", **arrays, **{"chrono/step": np.array(3)})
    found = read_checkpoint(tmp_path / "w.npz").state_dict
    assert_same(found, {"a/kernel": torch.ones(2, 3)})


def test_npz_without_prefix_gives_everything(tmp_path):
    arrays = {"a/kernel": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.float32(4)}
    np.savez_compressed(tmp_path / "w.npz", **arrays)
    found = read_checkpoint(tmp_path / "w.npz").state_dict
    assert_same(
        found, {"a/kernel": torch.arange(6.0).double().reshape(2, 3), "b": torch.tensor(4.0)}
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_bfloat16_of_jax_is_kept(order, tmp_path):
    values = torch.randn(4, 5).to(torch.bfloat16)
    raw = np.asarray(values.view(torch.int16).numpy().view("V2"), order=order)
    np.savez(tmp_path / "w.npz", **{"params/w": raw, "params/s": np.zeros((), "V2")})
    with np.load(tmp_path / "w.npz") as archive:
        assert archive["params/w"].dtype == np.dtype("V2")
    found = read_checkpoint(tmp_path / "w.npz").state_dict
    assert_same(found, {"w": values, "s": torch.zeros((), dtype=torch.bfloat16)})


def test_safetensors_give_their_metadata(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.bin", metadata={"model": "crate_alpha_demo"})
    checkpoint = read_checkpoint(tmp_path / "w.bin")
    assert_same(checkpoint.state_dict, WEIGHTS)
    assert checkpoint.metadata == {"model": "crate_alpha_demo"}


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_file_that_would_run_code_is_refused(legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": WEIGHTS, "extra": _Runs()}
    torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"bad\.pth: refused: .*execute code.*mkdir"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"refused: .*torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "model.pth")


def test_pickle_of_arrays_is_refused(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": np.ones(3)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"w\.pkl: (refused|not a PyTorch)"):
        read_checkpoint(tmp_path / "w.pkl")


def test_npz_with_pickled_objects_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "bad.npz", **{"params/w": np.array([_Runs()], dtype=object)})
    with pytest.raises(CheckpointError, match=r"bad\.npz: 'params/w': expected numbers.*'\|O'"):
        read_checkpoint(tmp_path / "bad.npz")
    assert not (tmp_path / "ran").exists()


def _written(kind, folder):
    path = folder / f"w.{kind}"
    big = {"w": torch.randn(64, 64), "v": torch.randn(32)}
    if kind == "npz":
        np.savez(path, **{f"params/{key}": value.numpy() for key, value in big.items()})
    elif kind == "safetensors":
        save_file(big, path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "pth")
    return path


@pytest.mark.parametrize("kind", ["npz", "pth", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.95, 0.999])
def test_truncated_file_is_named(kind, share, tmp_path):
    path = _written(kind, tmp_path)
    read_checkpoint(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(CheckpointError, match=rf"w\.{kind}: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_damaged_array_is_named(tmp_path):
    path = _written("npz", tmp_path)
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.npz: 'params/w' is damaged: Bad CRC"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", r"expected \.npz, PyTorch or safetensors, found b'<!DOCTYPE"),
        (b"version https://git-lfs.github.com/spec/v1", r"found b'version https://git-lfs\.'"),
    ],
)
def test_file_of_another_kind_is_refused(content, message, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        read_checkpoint(tmp_path / "w.pth")


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            read_checkpoint(path)


def test_archive_without_weights_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"without weights; it holds \['readme\.txt'\]"):
        read_checkpoint(tmp_path / "w.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of tensors, found list"),
        (torch.ones(3), "expected a dict of tensors, found Tensor"),
        ({"epoch": 3}, r"no tensors in it; it holds \['epoch'\]"),
        ({}, r"no tensors in it; it holds \[\]"),
        ({"w": torch.ones(1), "module.w": torch.ones(1)}, r"without the prefix 'module\.'"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_file_without_tensors_is_refused(kind, tmp_path):
    path = tmp_path / f"w.{kind}"
    if kind == "npz":
        np.savez(path)
    else:
        save_file({}, path)
    with pytest.raises(CheckpointError, match=rf"w\.{kind}: "):
        read_checkpoint(path)


def test_written_file_reads_back(tmp_path):
    path = tmp_path / "w.safetensors"
    weights = {**WEIGHTS, "t": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(1).bfloat16()}
    write_safetensors(path, weights, {"model": "crate_alpha_demo"})
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.state_dict, weights)
    assert checkpoint.metadata == {"model": "crate_alpha_demo"}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, WEIGHTS, {})

    def fail(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("crate_interp.weights.files.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        write_safetensors(path, {"other": torch.ones(1)}, {})
    assert_same(load_file(path), WEIGHTS)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_nothing_to_write_and_nowhere_are_refused(tmp_path):
    with pytest.raises(InputError, match="no tensors to write"):
        write_safetensors(tmp_path / "w.safetensors", {}, {})
    with pytest.raises(InputError, match="no folder"):
        write_safetensors(tmp_path / "none" / "w.safetensors", WEIGHTS, {})
