"""Probes: how far segmentation has emerged, measured while a model is trained."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from crate_interp.data import open_coco
from crate_interp.hooks import Site, available_sites
from crate_interp.segmentation import MaskCut
from crate_interp.training.checkpoints import TrainingState
from crate_interp.training.emergence import measure_emergence
from crate_interp.training.metrics import MetricsFile
from crate_interp.training.objective import Objective

__all__ = ["Probe"]

_logger = logging.getLogger(__name__)


class Probe:
    """Measures the evaluated weights on a few images with masks; keeps one line per measurement.

    Attention, MaskCut (tau 0.15, 3 masks) and TokenCut read the last block; all is computed in
    float32 (`measure_emergence`). Training goes on as if nothing had been.

    Args:
        objective: Objective of the run; its recipe names images and size.
        path: The CSV file; the lines after the checkpoint that a run goes on from are dropped.
        state: State of the run.

    Raises:
        InputError: There are no such images, or the size does not fit the model.
    """

    def __init__(self, objective: Objective, path: Path, state: TrainingState) -> None:
        recipe = objective.recipe
        self._state, self._backbone = state, objective.backbone
        place = Path(recipe.probe_set)
        root = None if place.name == recipe.probe_set else place.parent
        self._images = open_coco(place.name, root).limit(recipe.probe_pictures)
        self._size = recipe.probe_size or recipe.image_size
        whole = state.model if state.unsharded is None else state.unsharded
        backbone = self._backbone(whole)
        MaskCut(backbone, size=self._size)  # refuses a wrong size at once
        # Without a checkpoint nothing is kept: the untrained model is measured again.
        self._file = MetricsFile(path, state.step or -1)
        if Site.CLS_ATTENTION not in available_sites(backbone):
            _logger.warning("%s: the model has no class token, no attention is measured", path)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Add a line; the state's model is in training mode afterwards.

        Args:
            model: The evaluated weights of the state, whole.

        Returns:
            The numbers of the line, by name.

        Raises:
            InputError: The images cannot be read, or have no masks.
        """
        predictor = MaskCut(self._backbone(model).eval(), size=self._size)
        cutting = logging.getLogger("crate_interp.segmentation")
        before = cutting.level
        cutting.setLevel(logging.ERROR)  # it would tell of each image with nothing to cut in it
        try:
            numbers = measure_emergence(predictor, self._images).numbers()
        finally:
            cutting.setLevel(before)
        self._state.model.train()
        self._file.append({"step": self._state.step, **numbers})
        return numbers
