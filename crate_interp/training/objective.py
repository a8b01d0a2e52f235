"""Objectives of runs: the contract between an objective and the training loop.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, cast

from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor, nn

from crate_interp.models.backbones import Backbone
from crate_interp.training.augmentation import Normalisation, Transform
from crate_interp.training.batches import label_as_target
from crate_interp.training.data import TrainingData, open_data
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import build_model, export_record

__all__ = ["Objective"]


class Objective(ABC):
    """Data, model, views, loss, measure and export of a training task.

    The methods that are not abstract are those of a vision transformer that learns from labelled
    images. What an objective must remember from one update to the next belongs into its model, as
    parameters or buffers: checkpoints then hold it.

    Args:
        recipe: The settings of the run. A field of `Recipe` whose metadata names a task is refused
            in recipes of other tasks.

    Attributes:
        data: Images of training and validation.
        measure: Column of metrics.csv that validation fills. Higher accuracy is better, and lower
            loss.
        labelled: Whether every image must have a class.

    Raises:
        InputError: The recipe or its data do not fit the task.
    """

    measure: ClassVar[Literal["accuracy", "validation_loss"]]
    labelled: ClassVar[bool] = True

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.data = self.open_data()

    def open_data(self) -> TrainingData:
        """Open what is trained and measured on."""
        return open_data(self.recipe, self.labelled)

    def build_model(self) -> nn.Module:
        """Make the model to train, with its initial weights, float32, on the CPU."""
        return build_model(self.recipe, self.data.num_classes)

    def backbone(self, model: nn.Module) -> Backbone:
        """Give the part of a model that `load_backbone` reads from the exported file."""
        return cast("Backbone", model)

    def normalisation(self, model: nn.Module) -> Normalisation | None:
        """Give mean and standard deviation of RGB in [0, 1] for the model's input.

        `None` where the data are no images: what they give is then not transformed.
        """
        config: Any = self.backbone(model).pretrained_cfg
        return tuple(config["mean"]), tuple(config["std"])

    def view(self, image: Image.Image, label: int, transform: Transform) -> tuple[Tensor, Tensor]:
        """Make input and target of an image; here, the pixels and the label.

        The global random generators are seeded before, by the image's number in the run.

        Args:
            image: Image as the data have it.
            label: Number of its class, from 0.
            transform: Augmentation of the recipe, or the preparation of validation.

        Raises:
            InputError: The image cannot be used, for instance because of its label.
        """
        return label_as_target(image, label, transform)

    def enter_stage(self, model: nn.Module, stage: Recipe) -> None:  # noqa: B027
        """Prepare the model for an update in a stage of the curriculum; here, nothing is done."""

    @abstractmethod
    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Shaped[Tensor, "B ..."]
    ) -> Float[Tensor, ""]:
        """Compute the loss of a batch, the mean over its images; runs under autocast."""

    @abstractmethod
    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Shaped[Tensor, "B ..."]
    ) -> Shaped[Tensor, " B"]:
        """Measure each validation image; the mean over images is reported as `measure`."""

    def improves(self, score: float, best: float | None) -> bool:
        """Whether a mean score is better than the best so far, `None` before the first."""
        if best is None:
            return True
        return score > best if self.measure == "accuracy" else score < best

    def export(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Give what the exported file holds of a trained model: tensors by name, and metadata."""
        return model.state_dict(), export_record(self.recipe, self.backbone(model), self.data)
