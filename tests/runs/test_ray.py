"""Workers of a real Ray cluster on this machine, which die by signals."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from crate_interp.options import option
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.outputs import Conclusion, Json
from tests.runs.test_commands_go_on import files_of

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds workers by /proc")


@dataclass(frozen=True, kw_only=True)
class Slow(ImageFilesCommand):
    """Measures the mean of an image, slowly, and dies of one."""

    run_folder: ClassVar[bool] = True
    output: Path | None = option("folder", None, presentation=True)
    fatal: str = ""

    def reading(self, run):
        return Reading(["tokens"])

    def measure(self, run, image, output):
        import logging
        import os
        import signal
        import time

        time.sleep(0.2)
        if image.record.file_name == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        logging.getLogger("crate_interp.slow").warning("seen: %s", image.record.file_name)
        return {"mean": float(output["tokens", -1].double().mean())}

    def conclude(self, run):
        return Conclusion([Json("results", [[e["image_id"], e["mean"]] for e in run.entries])])


@pytest.fixture(scope="module")
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, before)
    yield
    ray.shutdown()


def slow(pictures, output, **options):
    command = Slow(images=[pictures], model="demo", size=24, batch_size=2, output=output, **options)
    return command.run()


def kill_a_worker():
    """Kill the first worker that there is."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"ray::Worker" in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
                    return
            except OSError:
                continue  # it has ended
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_workers_measure_as_one_process_does(cluster, pictures, tmp_path, caplog):
    assert slow(pictures, tmp_path / "alone") == 0
    caplog.clear()
    assert slow(pictures, tmp_path / "together", cluster="local", devices="2") == 0
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")
    assert {f"seen: {number}.png" for number in range(5)} <= set(caplog.messages)


@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_fatal_image(cluster, pictures, tmp_path, caplog):
    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    code = slow(pictures, tmp_path / "together", cluster="local", devices="2", fatal="3.png")
    killer.join()
    assert code == 1
    assert "a worker died over" in caplog.text
    (pictures / "3.png").write_bytes(b"no picture")
    assert slow(pictures, tmp_path / "alone") == 1
    results = [(tmp_path / name / "results.json").read_text() for name in ("together", "alone")]
    assert results[0] == results[1]
