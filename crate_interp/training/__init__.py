"""Training: recipes, data by number, checkpoints to go on from, and the loop."""

from crate_interp.training.checkpoints import TrainingState, load_latest, save_checkpoint
from crate_interp.training.data import TrainingData, open_data
from crate_interp.training.loop import TrainingResult, train
from crate_interp.training.metrics import Metrics
from crate_interp.training.recipe import Recipe
from crate_interp.training.recipe_files import read_recipe

__all__ = [
    "Metrics",
    "Recipe",
    "TrainingData",
    "TrainingResult",
    "TrainingState",
    "load_latest",
    "open_data",
    "read_recipe",
    "save_checkpoint",
    "train",
]
