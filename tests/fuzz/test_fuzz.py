"""A bounded part of the suite, and that its judgement sees what it is there to see."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from crate_interp.errors import InputError
from tests.fuzz.frame import Accepted, Damage, Target, run_case, set_up
from tests.fuzz.targets import TARGETS

SEED = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of the cases; what a library would write to the user's is there, too."""
    with set_up(tmp_path_factory.mktemp("fuzz")) as place:
        yield place


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_input_is_refused_or_used(target, place, one_thread):
    whole = run_case(target, SEED, -1, place)
    assert whole.kind == "success", whole
    failed = []
    for number in range(target.quick):
        outcome = run_case(target, SEED, number, place)
        if outcome.kind == "failure":
            command = f"python -m tests.fuzz --seed {SEED} --only {target.name} --case {number}"
            failed.append(f"{command}: [{outcome.how}] {outcome.why}")
    assert not failed, "\n".join(failed)


def refuse(message):
    raise InputError(message)


def accept():
    raise Accepted("another number")


def print_error(text, code=2):
    sys.stderr.write(text)
    return code


@pytest.mark.parametrize(
    ("use", "kind", "why"),
    [
        (lambda: None, "success", ""),
        (lambda: 0, "success", ""),
        (lambda: refuse("a.json: wrong"), "refusal", ""),
        (lambda: print_error("error: a.json: wrong\n"), "refusal", ""),
        (lambda: print_error("failed: a.json: wrong\n", 1), "refusal", ""),
        (lambda: refuse("wrong"), "failure", "message without"),
        (lambda: print_error("error: wrong\n"), "failure", "message without"),
        (lambda: print_error("failed: wrong\n", 1), "failure", "message without"),
        (lambda: print_error("error: a.json\nerror: b\n"), "failure", "2 error lines"),
        (lambda: print_error("error: a.json: \x1b\n"), "failure", "printable"),
        (lambda: print_error("error: a.json" + "x" * 500), "failure", "characters"),
        (lambda: print_error("Traceback (most recent call last):\n", 0), "failure", "traceback"),
        (lambda: print_error("", 70), "failure", "exit code 70"),
        (lambda: 1 // 0, "failure", "ZeroDivisionError at test_fuzz.py"),
        (accept, "failure", "accepted: another number"),
        (lambda: warnings.warn("overflow", RuntimeWarning, 1), "failure", "RuntimeWarning"),
        (lambda: Path("../elsewhere").write_text("x"), "failure", "wrote outside"),
        (lambda: Path("here").write_text("x") and None, "success", ""),
        (lambda: Path("../others/secret.json").read_text() and None, "failure", "of others"),
        (lambda: subprocess.run(["true"], check=True) and None, "failure", "process"),
        (lambda: os.system("true"), "failure", "process"),
    ],
)
def test_judgement(use, kind, why, tmp_path):
    def make(folder):
        (folder / "a.json").write_text("{}")

    target = Target("x/y", make, lambda *_: Damage(("a.json",), "test"), lambda _: use())
    with set_up(tmp_path / "place") as place:
        outcome = run_case(target, 0, 0, place)
    assert outcome.kind == kind, outcome
    assert why in outcome.why


def test_a_case_is_the_same_each_time(place):
    target = next(target for target in TARGETS if target.name == "coco/results")
    damaged = []
    for _ in range(2):
        run_case(target, SEED, 3, place)
        damaged.append((place.case / "results.json").read_bytes())
    assert damaged[0] == damaged[1]


def test_a_campaign_survives_crashes_and_hangs(tmp_path, monkeypatch):
    from tests.fuzz import campaign

    monkeypatch.setattr(campaign, "WORKER", "tests.fuzz.crashing_worker")
    monkeypatch.setattr(campaign, "SLOWEST", 0.5)
    monkeypatch.setattr(campaign, "START_SECONDS", 1)
    targets = [Target(f"x/{name}", *[print] * 3) for name in ("crash", "hang", "fine")]
    found = campaign.Campaign(targets, 0, tmp_path, time.monotonic() + 4)
    found.run(1)
    kinds = {name: dict(tally.kinds) for name, tally in found.tallies.items()}
    assert kinds["x/fine"].keys() == {"success"}
    assert kinds["x/crash"].keys() == kinds["x/hang"].keys() == {"failure"}
    assert any("hang" in failure for failure in found.failures)
    assert any("crash: exit -6" in failure for failure in found.failures)
