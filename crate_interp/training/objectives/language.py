"""Language: predict the next token of texts, as causal CRATE and GPT do.

Shapes: B texts, T tokens of a text.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from crate_interp.errors import InputError, shorten
from crate_interp.models.text import TextTransformer
from crate_interp.training.augmentation import Normalisation
from crate_interp.training.objective import Objective
from crate_interp.training.text_data import TextData, open_text_data
from crate_interp.weights.text import (
    TextRecord,
    create_text_model,
    load_text_model,
    plan_text_model,
)

__all__ = ["OBJECTIVE", "Language"]

# Keys of a recipe that say something of images, and would do nothing here.
_OF_IMAGES = ("stages", "probe_every", "keep_best", "drop_path", "epochs", "warmup_epochs")


class Language(Objective):
    """Cross-entropy of the next token, in nats, in training and on validation.

    The windows of the text are drawn by their number in the run.

    Args:
        recipe: The settings of the run.

    Raises:
        InputError: The texts cannot be read, or the recipe asks for what texts do not have.
    """

    measure = "validation_loss"
    labelled = False

    def open_data(self) -> TextData:
        """Read the texts."""
        recipe = self.recipe
        for name in _OF_IMAGES:
            if getattr(recipe, name):
                raise InputError(
                    f"{name}: expected it left out of a recipe of the task language, found "
                    f"{shorten(getattr(recipe, name))}"
                )
        if "vocabulary" in recipe.model_args:
            raise InputError(
                "model_args: expected sizes, found vocabulary: the key tokenizer decides about it"
            )
        return open_text_data(recipe, plan_text_model(recipe.model, **recipe.model_args).context)

    def build_model(self) -> TextTransformer:
        """Make the text model that the recipe names."""
        recipe, name = self.recipe, self.recipe.initial_weights
        sizes: Any = {**recipe.model_args, "vocabulary": self.data.num_classes}
        if name is None:
            return create_text_model(recipe.model, **sizes)
        return load_text_model(recipe.model, None if name == "published" else name, **sizes)

    def normalisation(self, model: Any) -> Normalisation | None:  # noqa: ARG002
        """Give nothing: a text is no image."""
        return None

    def view(self, image: Any, label: int, transform: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Give a window of the text, and the token that follows each of its tokens."""
        window = torch.from_numpy(image)
        return window[:-1], window[1:]

    def loss(
        self, model: Any, images: Int64[Tensor, "B T"], targets: Int64[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """Compute the mean cross-entropy of all tokens."""
        return F.cross_entropy(model(images).float().flatten(0, 1), targets.flatten())

    def scores(
        self, model: Any, images: Int64[Tensor, "B T"], targets: Int64[Tensor, "B T"]
    ) -> Float[Tensor, " B"]:
        """Compute the mean cross-entropy of each window."""
        logits = model(images).float().transpose(1, 2)
        return F.cross_entropy(logits, targets, reduction="none").mean(dim=1)

    def export(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Give the weights, and which model and vocabulary they are of."""
        vocabulary = cast("TextData", self.data).vocabulary.record
        sizes = {**self.recipe.model_args, **model.sizes}
        record = TextRecord(self.recipe.model, sizes, vocabulary)
        return model.state_dict(), record.to_metadata()


OBJECTIVE = Language
