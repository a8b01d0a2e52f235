"""Contrastive: tell which caption goes with which image, as CLIP and CLIPA do.

Shapes: B batch, H W pixels, E dimensions that images and texts share, T tokens of a text.

References: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020;
An Inverse Scaling Law for CLIP Training, arXiv 2305.07017.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_interp.errors import InputError, errors_of
from crate_interp.models import CrateClip, embed_classes
from crate_interp.models.backbones import Backbone
from crate_interp.training.augmentation import Transform
from crate_interp.training.caption_data import CaptionData, open_caption_data
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import build_model, export_record, find_initial_weights
from crate_interp.weights import read_checkpoint
from crate_interp.weights.clip import clip_file_of, create_clip, load_text_tower_into, tokens_of

__all__ = ["OBJECTIVE", "Contrastive", "contrastive_loss"]

# Text tower of the release: crate_alpha_CLIPA_L14 and H14 have the same one.
_TEXT_TOWER = {"context": 32, "width": 1024, "depth": 24, "num_heads": 16, "embedding": 1024}
_LARGEST_SCALE = 100.0  # factor on cosines
_PROMPTS = ["a photo of a {}."]


class Contrastive(Objective):
    """Symmetric cross-entropy of images and captions; validation measures zero-shot accuracy.

    Each image is compared with the captions of its forward pass, so more accumulation steps or
    processes leave fewer to compare with.

    Args:
        recipe: The settings of the run.

    Raises:
        InputError: The data have no captions, or the recipe asks for sharding.
    """

    measure = "accuracy"

    def open_data(self) -> CaptionData:
        """Open the captioned images."""
        recipe = self.recipe
        if recipe.sharding != "none":
            raise InputError(
                f"sharding: expected none for the task contrastive, found {recipe.sharding}: a "
                "temperature cannot be split"
            )
        self._sizes = {**_TEXT_TOWER, **(recipe.text_args or {})}
        return open_caption_data(recipe, self._sizes["embedding"])

    def build_model(self) -> CrateClip:
        """Make the vision tower that the recipe names, and its text tower."""
        recipe, data = self.recipe, cast("CaptionData", self.data)
        visual = build_model(recipe, self._sizes["embedding"])
        with errors_of(f"model {recipe.model}, text_args"):
            model = create_clip(visual, self._sizes, data.vocabulary)
        initial = find_initial_weights(recipe)
        if initial is not None:
            checkpoint = read_checkpoint(initial)
            if "logit_scale" in checkpoint.state_dict:
                load_text_tower_into(model, checkpoint)
        return model

    def backbone(self, model: Any) -> Backbone:
        """Give the vision tower."""
        return cast("CrateClip", model).visual

    def view(self, image: Any, label: int, transform: Transform) -> tuple[Tensor, Tensor]:
        """Give pixels, and the label with the tokens of the caption behind it, if there is one."""
        picture, caption = image if isinstance(image, tuple) else (image, "")
        vocabulary = cast("CaptionData", self.data).vocabulary
        tokens = tokens_of(vocabulary, [caption], self._sizes["context"])[0]
        return transform(picture), torch.cat([torch.tensor([label]), tokens])

    def enter_stage(self, model: Any, stage: Recipe) -> None:  # noqa: ARG002
        """Keep the factor on cosines at 100 at most."""
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(_LARGEST_SCALE))

    def loss(
        self, model: Any, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, "B T+1"]
    ) -> Float[Tensor, ""]:
        """Compute the contrastive loss of a batch."""
        return contrastive_loss(*model(images, targets[:, 1:]))

    def scores(
        self, model: Any, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, "B T+1"]
    ) -> Bool[Tensor, " B"]:
        """Whether the class whose prompt is nearest to an image is its label, per image."""
        validation = self.data.validation
        classes = embed_classes(model, validation.classes if validation else (), _PROMPTS)
        found = model.zero_shot(model.encode_image(images).float(), classes).argmax(dim=1)
        return cast("Tensor", found == targets[:, 0])

    def export(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Give both towers, for `load_backbone` and `load_clip`."""
        data = cast("CaptionData", self.data)
        tensors, metadata = clip_file_of(model, data.vocabulary)
        tensors["logit_scale"] = tensors["logit_scale"].clamp(max=math.log(_LARGEST_SCALE))
        return tensors, export_record(self.recipe, model.visual, data) | metadata


def contrastive_loss(
    images: Float[Tensor, "B E"], texts: Float[Tensor, "B E"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Compute the mean cross-entropy of the own text of each image, and the own image of each text.

    Args:
        images: Embeddings of images, of unit length.
        texts: Embeddings of their texts, of unit length.
        scale: Factor on cosines.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * images @ texts.t()
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2


OBJECTIVE = Contrastive
