"""Checkpoints that were damaged are not gone on from."""

import json
import logging

import pytest
import torch

from crate_interp.errors import CheckpointError, InputError
from crate_interp.training import Recipe, train
from crate_interp.training.checkpoint_files import read_checkpoint, write_checkpoint


class StoppedError(Exception):
    """Raised by a test in the middle of a run."""


@pytest.fixture
def recipe(settings):
    return Recipe(**{**settings, "save_every": 2, "keep": 3})


@pytest.fixture
def stopped(recipe, tmp_path):
    """A run that was stopped after step 7: checkpoints of 2, 4 and 6."""

    def stop(metrics, _):
        if metrics.step == 7:
            raise StoppedError

    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(StoppedError):
        train(recipe, folder, stop)
    return folder


def checkpoint(folder, step):
    return folder / "checkpoints" / f"step-{step:08d}.pt"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def cut_its_checksum(path):
    path.write_bytes(path.read_bytes()[:-5])


def empty(path):
    path.write_bytes(b"")


def of_an_earlier_version(path):
    torch.save(torch.load(path, weights_only=True), path)


def rewritten(change):
    def damage(path):
        content = read_checkpoint(path)
        change(content)
        torch.save(content, path)
        from crate_interp.weights import weights_checksum

        digest = weights_checksum(path)
        with path.open("ab") as file:
            file.write(f"\nsha256:{digest}".encode())

    damage.__name__ = change.__name__
    return damage


def nan(content):
    content["model"]["head.weight"][0, 0] = float("nan")


def infinite_moment(content):
    content["optimizer"]["state"][0]["exp_avg"][0] = float("inf")


def without_a_key(content):
    del content["optimizer"]


def of_wrong_type(content):
    content["step"] = "6"


def of_another_step(content):
    content["step"] = 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "expected the checksum"),
        (cut_off, "expected its checksum at the end, found none"),
        (cut_its_checksum, "checksum"),
        (empty, "expected its checksum at the end, found none"),
        (of_an_earlier_version, "expected its checksum at the end, found none"),
        (rewritten(nan), "found NaN or infinity in model.head.weight"),
        (rewritten(infinite_moment), "found NaN or infinity in optimizer.state.0.exp_avg"),
        (rewritten(without_a_key), "not a checkpoint of this version: optimizer: expected"),
        (rewritten(of_wrong_type), "step: expected int, found str"),
        (rewritten(of_another_step), "not the checkpoint of its name, but of 5"),
    ],
)
def test_the_one_before_a_damaged_checkpoint_is_used_and_that_is_told(
    recipe, stopped, tmp_path, caplog, damage, message
):
    damage(checkpoint(stopped, 6))
    seen = []
    with caplog.at_level(logging.WARNING):
        result = train(recipe, stopped, lambda metrics, _: seen.append(metrics.step))
    assert result.finished
    assert seen == [5, 6, 7, 8]
    (told,) = [text for text in caplog.messages if "step-" in text]
    assert str(checkpoint(stopped, 6)) in told
    assert message in told
    assert told.endswith("; the run goes on from step-00000004.pt")
    whole = tmp_path / "whole"
    whole.mkdir()
    train(recipe, whole)
    assert (whole / "model.safetensors").stat().st_size > 0
    for name in ("model", "optimizer"):
        one, two = (
            json.dumps(read_checkpoint(checkpoint(f, 8))[name], default=repr)
            for f in (whole, stopped)
        )
        assert one == two
    for step in (4, 6, 8):
        read_checkpoint(checkpoint(stopped, step))


def test_damaged_checkpoints_of_later_steps_do_not_push_good_ones_out(settings, stopped):
    flip_a_bit(checkpoint(stopped, 6))
    flip_a_bit(checkpoint(stopped, 4))
    recipe = Recipe(**{**settings, "save_every": 1, "keep": 1})

    def stop(metrics, _):
        if metrics.step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, stopped, stop)
    (left,) = (stopped / "checkpoints").iterdir()
    assert read_checkpoint(left)["step"] == 3


def test_where_all_are_damaged_the_run_does_not_begin_anew(recipe, stopped):
    for step in (2, 4, 6):
        flip_a_bit(checkpoint(stopped, step))
    metrics = (stopped / "metrics.csv").read_bytes()
    with pytest.raises(CheckpointError, match="there is no other one to go on from") as raised:
        train(recipe, stopped)
    assert "step-00000006.pt" in str(raised.value)
    assert (stopped / "metrics.csv").read_bytes() == metrics


def test_a_whole_checkpoint_of_another_model_is_refused(settings, stopped):
    recipe = Recipe(**{**settings, "model_args": {**settings["model_args"], "embed_dim": 64}})
    with pytest.raises(CheckpointError, match=r"step-00000006\.pt: not a checkpoint of this run"):
        train(recipe, stopped)


def test_what_a_killed_writer_left_is_cleared_away(recipe, stopped):
    left = stopped / "checkpoints" / ".step-00000005.pt.4711.partial"
    left.write_bytes(b"half")
    train(recipe, stopped)
    assert not left.exists()


def test_weights_that_are_not_finite_are_not_saved(stopped):
    content = read_checkpoint(checkpoint(stopped, 6))
    before = checkpoint(stopped, 6).read_bytes()
    nan(content)
    with pytest.raises(InputError, match=r"step-00000006\.pt: expected finite numbers to save"):
        write_checkpoint(checkpoint(stopped, 6), content)
    assert checkpoint(stopped, 6).read_bytes() == before
    assert sorted(path.suffix for path in (stopped / "checkpoints").iterdir()) == [".pt"] * 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(b"\n4,", b"\n\xff,"), "line 5: expected UTF-8"),
        (lambda text: text.replace(b"\n4,", b"\nfour,"), "line 5: step: expected a finite number"),
        (lambda text: text.replace(b"\n4,", b"\n4,1,"), "line 5: expected 7 cells, found 8"),
        (lambda text: text.replace(b"\n4,", b"\n4" + 200_000 * b"0" + b","), "line 5: no CSV"),
        (lambda text: text.replace(b"step,", b"stop,"), "line 1: expected columns"),
        (lambda text: text.replace(b"loss,", b"step,", 1), "line 1: expected columns"),
        (lambda text: text.replace(b"\n4,", b'\n"4,'), "metrics.csv, line "),
    ],
)
def test_a_damaged_table_of_metrics_is_named(recipe, stopped, damage, message):
    path = stopped / "metrics.csv"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message) as raised:
        train(recipe, stopped)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) <= 500


def test_half_a_last_line_of_metrics_is_dropped(recipe, stopped):
    path = stopped / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    train(recipe, stopped)
    assert path.read_bytes()[: len(whole) // 2] == whole[: len(whole) // 2]
    assert [line[0] for line in path.read_text().splitlines()] == [*"s12345678"]
