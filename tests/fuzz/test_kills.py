"""A few points of the kill campaign; `python -m tests.fuzz.kills` is the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks for orphans in /proc, and forks")
def test_killed_runs_go_on_to_the_files_of_undisturbed_ones(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.kills", "--points", "2", "--only"]
    done = subprocess.run(
        [*command, "maskcut,train", "--folder", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
    assert "0 failures" in done.stdout
