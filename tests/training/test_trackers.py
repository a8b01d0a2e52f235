"""What trackers are told is what metrics.csv says; none is needed."""

import csv
import dataclasses
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import accelerate  # noqa: F401  (it looks for wandb when it is loaded)
import pytest

from crate_interp.errors import InputError
from crate_interp.training import Recipe, train
from crate_interp.training.trackers import open_trackers


class FakeWandb:
    """Keeps what it is told, as the module `wandb` and as its run."""

    def __init__(self):
        self.started, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.started.append(settings)
        return self

    def log(self, metrics, step):
        self.logged.append((step, metrics))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    module.init = fake.init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_PROJECT", "emergence")
    return fake


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_wandb_is_told_what_the_csv_says_and_goes_on_as_one_run(settings, tmp_path, wandb):
    recipe = Recipe(**{**settings, "log_every": 3, "validation_split": "train", "save_every": 4})

    def stop(metrics, _):
        if metrics.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stop)
    assert wandb.finished == 1
    assert train(recipe, tmp_path).finished
    assert wandb.finished == 2
    first, second = wandb.started
    assert first["id"] == second["id"]
    assert first["project"] == "emergence"
    assert first["config"] == dataclasses.asdict(recipe)
    assert [step for step, _ in wandb.logged] == [3, 6, 8]
    for (step, told), row in zip(wandb.logged, rows(tmp_path), strict=True):
        kept = {name: float(value) for name, value in row.items() if value}
        assert (step, told) == (kept.pop("step"), kept)
    assert "accuracy" not in wandb.logged[0][1]
    assert "accuracy" in wandb.logged[-1][1]


def test_wandb_is_left_alone_where_no_project_is_named(tmp_path, wandb, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT")
    with open_trackers(tmp_path, Recipe(model="demo", steps=1), 0, True) as trackers:
        for tracker in trackers:
            tracker.log({"loss": 1.0}, 1)
    assert wandb.started == []
    assert not (tmp_path / "wandb_run_id").exists()


def test_a_damaged_name_of_a_run_is_refused(tmp_path, wandb):
    (tmp_path / "wandb_run_id").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="wandb_run_id: expected 32 hexadecimal digits"):
        with open_trackers(tmp_path, Recipe(model="demo", steps=1), 0, True):
            pass
    assert wandb.started == []


def test_wandb_hears_of_the_main_process_only(tmp_path, wandb):
    with open_trackers(tmp_path, Recipe(model="demo", steps=1), 0, False) as trackers:
        for tracker in trackers:
            tracker.log({"loss": 1.0}, 1)
    assert wandb.started == wandb.logged == []


def test_named_project_without_wandb_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    monkeypatch.setenv("WANDB_PROJECT", "emergence")
    with open_trackers(tmp_path, Recipe(model="demo", steps=1), 0, True) as trackers:
        for tracker in trackers:
            tracker.log({"loss": 1.0}, 1)
    assert "wandb is not installed" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_tensorboard_has_what_the_csv_says(settings, tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard"
    )
    recipe = Recipe(**{**settings, "log_every": 3, "save_every": 4})

    def stop(metrics, _):
        if metrics.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stop)  # tells of step 6, which the next part repeats
    train(recipe, tmp_path)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {
        "loss",
        "learning_rate",
        "gradient_norm",
        "seconds",
    }
    for name in ("loss", "learning_rate", "gradient_norm"):
        told = {event.step: event.value for event in found.Scalars(name)}
        kept = {int(row["step"]): float(row[name]) for row in rows(tmp_path)}
        assert told == pytest.approx(kept, rel=1e-6)
