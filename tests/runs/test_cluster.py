"""Commands whose images workers of a cluster work off: the same files, whoever dies."""

import html
import sys
from pathlib import Path

import pytest
import torch

from crate_interp.cli import main
from crate_interp.data.coco import ImageRecord
from crate_interp.runs import provenance
from crate_interp.runs.handing_out import cut_shards
from tests.runs.stand_in_ray import StandInRay
from tests.runs.test_commands_go_on import COMMANDS, command, files_of

WORKERS = ["--cluster", "--devices"]


@pytest.fixture
def ray(monkeypatch):
    """Stands for Ray; what it starts are workers of this process."""
    stand_in, threads = StandInRay(), torch.get_num_threads()
    torch.set_num_threads(1)  # gradients differ in the last digit by the number of threads
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    yield stand_in
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", COMMANDS)
def test_workers_write_the_same_files(name, ray, pictures, tmp_path):
    assert main(command(name, pictures, tmp_path / "alone")) == 0
    assert not ray.workers
    assert main([*command(name, pictures, tmp_path / "together"), *WORKERS, "3"]) == 0
    assert len(ray.workers) in (3, 6, 9)
    assert ray.ended == len(ray.workers)
    assert ray.most_at_once > 1
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


def deaths(times, worker=None, method="work", image=None, item=0):
    """Says when workers die: `times` times, in sending that item, or over that image."""
    left = [times]

    def dies(called, number, arguments, sending):
        if called != method or sending != item or not left[0] or worker not in (None, number):
            return False
        if image is not None and all(record.image_id != image for record in _tried(arguments)):
            return False
        left[0] -= 1
        return True

    return dies


def _tried(arguments):
    work, _, shard = arguments
    return [
        record
        for record in shard.records
        if record.image_id in shard.left and record.image_id not in work.refused
    ]


@pytest.mark.parametrize("name", ["maskcut", "atlas"])
@pytest.mark.parametrize("loads", [0, 3])
def test_workers_that_die_change_nothing(name, loads, ray, pictures, tmp_path, caplog):
    at_work, begun, at_loading = deaths(2), [], deaths(loads, method="about")

    def dies(called, *rest):
        begun.append(called)
        return at_work(called, *rest) or ("work" in begun and at_loading(called, *rest))

    ray.dies = dies
    assert main(command(name, pictures, tmp_path / "alone")) == 0
    assert main([*command(name, pictures, tmp_path / "together"), *WORKERS, "2"]) == 0
    assert caplog.text.count("a worker died over") == 2
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


@pytest.mark.parametrize("name", ["maskcut", "atlas"])
def test_a_worker_that_dies_after_its_last_image_loses_none(name, ray, pictures, tmp_path, caplog):
    ray.dies = deaths(2, item=1)  # all images of a shard are in the first
    assert main(command(name, pictures, tmp_path / "alone")) == 0
    assert main([*command(name, pictures, tmp_path / "together"), *WORKERS, "2"]) == 0
    assert "a worker died over" not in caplog.text
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


def test_only_the_image_that_kills_workers_fails(ray, pictures, tmp_path, capsys):
    ray.dies = deaths(99, image=3)
    assert main([*command("maskcut", pictures, tmp_path / "together"), *WORKERS, "2"]) == 1
    assert "2.png: kills the worker that measures it, 3 times" in capsys.readouterr().err
    # It is as if the image could not be read: the other one of its batch is alone in it.
    (pictures / "2.png").write_bytes(b"no picture")
    assert main(command("maskcut", pictures, tmp_path / "alone")) == 1
    together, alone = (files_of(tmp_path / name) for name in ("together", "alone"))
    failed = [files.pop("summary.json")["failed"] for files in (together, alone)]
    assert [[entry["image_id"] for entry in of_run] for of_run in failed] == [[3], [3]]
    for files, (entry,) in zip((together, alone), failed, strict=True):
        page, reason = files.pop("report.html"), html.escape(entry["reason"]).encode()
        assert page.count(reason) == 1
        files["page without the reason"] = page.replace(reason, b"")
    assert together == alone


def test_images_that_only_kill_together_are_named(ray, pictures, tmp_path, capsys):
    def dies(called, number, arguments, item):
        return called == "work" and {3, 4} <= {record.image_id for record in _tried(arguments)}

    ray.dies = dies
    assert main([*command("maskcut", pictures, tmp_path / "out"), *WORKERS, "2"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "2.png to " in message
    assert "take a smaller --batch-size" in message


def test_a_run_without_workers_left_ends(ray, pictures, tmp_path, capsys):
    works = []

    def dies(called, number, arguments, item):
        works.extend([number] * (called == "work"))
        return bool(works)

    ray.dies = dies
    assert main([*command("maskcut", pictures, tmp_path / "out"), *WORKERS, "2"]) == 2
    assert "no worker is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        ("versions", "torch", "expected torch "),
        ("weights", "sha256", "expected sha256 "),
        ("settings", "precision", "expected precision "),
    ],
)
def test_a_worker_that_differs_is_named(part, name, words, ray, pictures, tmp_path, capsys):
    own, calls = provenance.provenance_of, []

    def differing(*arguments):
        calls.append(own(*arguments))
        result = own(*arguments)
        if len(calls) == 3:  # this process, one worker, and then the other
            result[part] = {**result[part], name: "another"}
        return result

    provenance.provenance_of = differing
    try:
        assert main([*command("maskcut", pictures, tmp_path / "out"), *WORKERS, "2"]) == 2
    finally:
        provenance.provenance_of = own
    message = capsys.readouterr().err
    assert f"{part}: {words}" in message
    assert "found 'another'" in message
    assert "worker on " in message


def test_a_worker_that_does_not_see_the_images_says_so(ray, pictures, tmp_path, capsys):
    arguments = [*command("maskcut", pictures, tmp_path / "out"), *WORKERS, "2"]

    def dies(called, number, sent, item):
        for folder in sent[0] if called == "about" else ():
            Path(folder).rename(f"{folder}-gone")
        return False

    ray.dies = dies
    assert main(arguments) == 2
    assert f"{pictures}: expected the images of the run, found no such folder" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("devices", ["0", "two", "", "cuda", "cuda:0,cuda:0", "cpu,cpu", "-1"])
def test_devices_that_make_no_sense_are_refused(devices, ray, pictures, tmp_path, capsys):
    assert main([*command("pca", pictures, tmp_path), "--devices", devices]) == 2
    assert "--devices: expected a number from 1" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(ray, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert main([*command("pca", pictures, tmp_path), "--devices", "cuda:0,cuda:2"]) == 2
    assert "cuda:2: this machine has 2 GPUs" in capsys.readouterr().err


def test_one_device_needs_no_ray(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for number, devices in enumerate(["1", "auto"]):
        output = tmp_path / str(number)
        assert main([*command("pca", pictures, output), "--devices", devices]) == 0


def test_without_ray_a_line_says_how_to_get_it(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*command("pca", pictures, tmp_path), "--cluster"]) == 2
    assert "pip install 'crate-interp[ray]'" in capsys.readouterr().err


def test_no_image_is_an_error(ray, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([*command("pca", tmp_path / "empty", tmp_path), "--cluster"]) == 2
    assert "expected image files" in capsys.readouterr().err


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("done", [set(), {1, 2, 3, 7}, set(range(1, 24))])
def test_shards_are_whole_batches_of_all_images(in_order, done, tmp_path):
    records = [ImageRecord(number, str(number), tmp_path) for number in range(1, 24)]
    shards = list(cut_shards(records, 4, done, workers=2, in_order=in_order))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    left = [image_id for shard in shards for image_id in sorted(shard.left)]
    assert left == [number for number in range(1, 24) if number not in done]
    for shard in shards:
        assert (shard.records[0].image_id - 1) % 4 == 0
        assert len(shard.records) % 4 == 0 or shard.records[-1].image_id == 23
        assert not in_order or len(shard.records) <= 4


def test_shards_of_no_image():
    assert list(cut_shards([], 4, set(), workers=2, in_order=False)) == []
