"""The engine with numbers for images: `read` gives a number, `forward` its tenfold."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from crate_interp.data import ImageRecord
from crate_interp.engine import process_images
from crate_interp.errors import InputError


@pytest.fixture
def readers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import engine_readers

    return engine_readers


def records(count, **special):
    """Records 1 to `count`; `special` gives file names, which say how to read, to some."""
    names = {int(number[1:]): name for number, name in special.items()}
    return [
        ImageRecord(number, names.get(number, "plain"), Path(f"{number}.png"))
        for number in range(1, count + 1)
    ]


def tenfold(images, stage):
    with stage("forward"):
        return [10 * image for image in images]


def finish(record, image, output, stage):
    with stage("cut"):
        return record.image_id, image, output


def run(records, read, forward=tenfold, finish=finish, batch_size=3, workers=0, done=()):
    options = {"batch_size": batch_size, "workers": workers, "done": done}
    with closing(process_images(records, read, forward, finish, **options)) as outcomes:
        return list(outcomes)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_image_goes_through_all_stages_in_order(readers, batch_size, workers):
    batches = []

    def forward(images, stage):
        batches.append(images)
        return tenfold(images, stage)

    outcomes = run(records(7), readers.read, forward, batch_size=batch_size, workers=workers)
    assert [outcome.result for outcome in outcomes] == [(n, n, 10 * n) for n in range(1, 8)]
    assert all(set(outcome.seconds) == {"read", "forward", "cut"} for outcome in outcomes)
    numbers = list(range(1, 8))
    assert batches == [numbers[at : at + batch_size] for at in range(0, 7, batch_size)]


def test_no_image_opens_no_process(readers, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: pytest.fail("opened a pool"))
    assert run([], readers.read, workers=0) == []


def test_images_that_are_done_stay_in_their_batch_and_do_not_come_again(readers):
    batches = []

    def forward(images, stage):
        batches.append(images)
        return tenfold(images, stage)

    outcomes = run(records(9, _9="corrupt"), readers.read, forward, done={1, 2, 3, 4, 9})
    assert [outcome.record.image_id for outcome in outcomes] == [5, 6, 7, 8]
    assert batches == [[4, 5, 6], [7, 8]]


def test_a_batch_with_nothing_new_that_can_be_read_skips_the_model(readers):
    outcomes = run(
        records(3, _2="corrupt"), readers.read, lambda _: pytest.fail("ran"), done={1, 3}
    )
    assert [outcome.record.image_id for outcome in outcomes] == [2]
    assert "damaged" in str(outcomes[0].error)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_fails_alone(readers, workers):
    outcomes = run(records(6, _2="corrupt"), readers.read, workers=workers)
    by_id = {outcome.record.image_id: outcome for outcome in outcomes}
    assert sorted(by_id) == [1, 2, 3, 4, 5, 6]
    assert by_id[2].result is None
    assert str(by_id[2].error) == "2.png: cannot be read: damaged"
    assert all(by_id[number].error is None for number in (1, 3, 4, 5, 6))


def test_an_image_that_cannot_be_finished_fails_alone(readers):
    def finish(record, image, output, stage):
        if image == 4:
            raise InputError("features: found NaN")
        return output

    outcomes = run(records(6), readers.read, finish=finish)
    assert [outcome.result for outcome in outcomes] == [10, 20, 30, None, 50, 60]
    assert str(outcomes[3].error) == "4.png: features: found NaN"


def test_a_reader_that_is_killed_is_replaced_and_nothing_is_lost(readers, tmp_path, caplog):
    images = records(8)
    images[4] = ImageRecord(5, "once", tmp_path / "flag")
    (tmp_path / "flag").touch()
    outcomes = run(images, readers.read, workers=2)
    assert sorted(outcome.result for outcome in outcomes) == [(n, n, 10 * n) for n in range(1, 9)]
    assert "a process that reads images died" in caplog.text


def test_an_image_that_kills_its_reader_is_found_and_the_others_are_done(readers):
    outcomes = run(records(8, _5="deadly"), readers.read, workers=2)
    results = sorted(outcome.result for outcome in outcomes if outcome.error is None)
    assert results == [(n, n, 10 * n) for n in (1, 2, 3, 4, 6, 7, 8)]
    (failed,) = (outcome for outcome in outcomes if outcome.error is not None)
    assert failed.record.image_id == 5
    assert "5.png: cannot be read: the process that reads it dies" in str(failed.error)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_reader_stops_the_run_and_names_the_image(readers, workers):
    with pytest.raises(RuntimeError, match=r"2\.png: could not be read: ZeroDivisionError"):
        run(records(9, _2="bug"), readers.read, workers=workers)


def test_a_bug_after_the_model_stops_the_run_and_names_the_image(readers):
    with pytest.raises(RuntimeError, match=r"1\.png: could not be finished: TypeError"):
        run(records(9), readers.read, finish=lambda *_: 1 + "")


def test_a_batch_that_does_not_fit_into_memory_is_wrong_input(readers):
    def forward(images, stage):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match=r"3 images at once do not fit .* smaller batch size"):
        run(records(9), readers.read, forward)


def test_the_next_batch_is_in_the_model_while_the_last_is_finished(readers):
    second = threading.Event()

    def forward(images, stage):
        if 4 in images:
            second.set()
        return images

    outcomes = run(records(6), readers.read, forward, lambda *_: second.wait(10))
    assert all(outcome.result for outcome in outcomes)


@pytest.mark.parametrize(("batch_size", "workers"), [(3, 0), (1, 2)])
def test_what_is_under_way_is_bounded(readers, batch_size, workers):
    count, most, yielded = 0, 0, 0

    def forward(images, stage):
        nonlocal count, most
        count += len(images)
        most = max(most, count - yielded)
        return images

    def slow(*_):
        time.sleep(0.002)

    options = {"batch_size": batch_size, "workers": workers}
    with closing(process_images(records(60), readers.read, forward, slow, **options)) as outcomes:
        for _ in outcomes:
            yielded += 1
    assert yielded == 60
    assert most <= max(batch_size, workers) + 2 * batch_size


def test_leaving_early_stops_processes_and_threads(readers):
    threads, num_threads = set(threading.enumerate()), torch.get_num_threads()
    options = {"batch_size": 2, "workers": 2}
    with closing(process_images(records(50), readers.read, tenfold, finish, **options)) as outcomes:
        assert next(outcomes).result == (1, 1, 10)
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
    assert set(threading.enumerate()) <= threads
    assert torch.get_num_threads() == num_threads


ORPHANS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_readers import read_process
from crate_interp.data import ImageRecord
from crate_interp.engine import process_images
records = [ImageRecord(number, "", Path("x")) for number in range(2)]
def finish(record, process, *_):
    print(process, flush=True)
    time.sleep(60)
def forward(images, stage):
    return images
list(process_images(records, read_process, forward, finish, batch_size=1, workers=1))
"""


def lives(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and its parent does not look at it


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_readers_end_when_the_main_process_is_killed():
    command = [sys.executable, "-c", ORPHANS, str(Path(__file__).parent)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **pipes) as main:
        reader = int(main.stdout.readline())
        assert lives(reader)
        main.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not lives(reader):
            return
        time.sleep(0.1)
    os.kill(reader, signal.SIGKILL)
    pytest.fail("the reader outlived the main process by 10 seconds")


STARTING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_readers import read
from crate_interp.cli import main
from crate_interp.data import ImageRecord
from crate_interp.engine import process_images
from crate_interp.commands.models import Models
def run(_):
    records = [ImageRecord(number, "plain", Path("x")) for number in range(1, 10**6)]
    options = {"batch_size": 1, "workers": 2}
    print("starts", flush=True)
    for _ in process_images(records, read, lambda images, stage: images, print, **options): pass
Models.run = run
sys.exit(main(["models"]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize(
    ("lines", "number", "to_group"),  # after one line readers start, after five they work
    [
        (1, signal.SIGINT, True),
        (5, signal.SIGINT, True),
        (1, signal.SIGTERM, True),
        (5, signal.SIGTERM, False),
    ],
)
def test_a_stop_at_any_moment_is_one_line_and_leaves_no_process(lines, number, to_group):
    stopped = {
        signal.SIGINT: (130, "interrupted"),
        signal.SIGTERM: (143, "stopped by SIGTERM"),
    }
    code, message = stopped[number]
    command = [sys.executable, "-c", STARTING, str(Path(__file__).parent)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True) as main:
        for _ in range(lines):
            assert main.stdout.readline()
        time.sleep(0.3 if lines == 1 else 0)
        (os.killpg if to_group else os.kill)(main.pid, number)
        _, error = main.communicate(timeout=60)
    assert main.returncode == code, error
    assert error == f"{message}; the same command begins anew\n"
    sessions = {}
    for _ in range(100):
        sessions = processes_of_session(main.pid)
        if not sessions:
            return
        time.sleep(0.1)
    pytest.fail(f"{sessions} outlived the main process by 10 seconds")


def processes_of_session(session):
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found[stat.parent.name] = state
    return found
