"""Training: recipes, data by number, checkpoints to go on from, and the loop."""

from crate_interp.training.checkpoints import TrainingState, load_latest, save_checkpoint
from crate_interp.training.data import TrainingData, open_data
from crate_interp.training.held_out import (
    open_held_out,
    preparation_of,
    read_prepared,
    recorded_recipe,
)
from crate_interp.training.later_probes import (
    PROBE_KEYS,
    missing_probes,
    probe_run,
    probes_itself,
)
from crate_interp.training.loop import TrainingResult, train
from crate_interp.training.metrics import Metrics
from crate_interp.training.probe_columns import column_of
from crate_interp.training.recipe import Recipe
from crate_interp.training.recipe_files import read_recipe
from crate_interp.training.recorded_runs import Columns, RecordedRun, read_run, spent_before
from crate_interp.training.run_weights import (
    RunWeights,
    export_checkpoint,
    is_run_checkpoint,
    read_run_recipe,
)

__all__ = [
    "PROBE_KEYS",
    "Columns",
    "Metrics",
    "Recipe",
    "RecordedRun",
    "RunWeights",
    "TrainingData",
    "TrainingResult",
    "TrainingState",
    "column_of",
    "export_checkpoint",
    "is_run_checkpoint",
    "load_latest",
    "missing_probes",
    "open_data",
    "open_held_out",
    "preparation_of",
    "probe_run",
    "probes_itself",
    "read_prepared",
    "read_recipe",
    "read_run",
    "read_run_recipe",
    "recorded_recipe",
    "save_checkpoint",
    "spent_before",
    "train",
]
