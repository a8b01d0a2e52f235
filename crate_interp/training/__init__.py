"""Training: recipes, data by number, checkpoints to go on from, and the loop."""

from crate_interp.training.checkpoints import TrainingState, load_latest, save_checkpoint
from crate_interp.training.data import TrainingData, open_data
from crate_interp.training.held_out import (
    open_held_out,
    preparation_of,
    read_prepared,
    recorded_recipe,
)
from crate_interp.training.loop import TrainingResult, train
from crate_interp.training.metrics import Metrics
from crate_interp.training.recipe import Recipe
from crate_interp.training.recipe_files import read_recipe
from crate_interp.training.recorded_runs import Columns, RecordedRun, read_run, spent_before

__all__ = [
    "Columns",
    "Metrics",
    "Recipe",
    "RecordedRun",
    "TrainingData",
    "TrainingResult",
    "TrainingState",
    "load_latest",
    "open_data",
    "open_held_out",
    "preparation_of",
    "read_prepared",
    "read_recipe",
    "read_run",
    "recorded_recipe",
    "save_checkpoint",
    "spent_before",
    "train",
]
