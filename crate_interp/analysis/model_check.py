"""Whether everything here works on a model: a few passes with random weights at small depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import UInt8
from torch import nn

from crate_interp import hooks, segmentation, weights
from crate_interp.errors import InputError
from crate_interp.hooks import Observer, Site, Target, ZeroEdit
from crate_interp.models.anatomy import anatomy_of
from crate_interp.models.backbones import embedding_of, lacking_in, patch_hw_of
from crate_interp.structures import Activations

__all__ = ["STEPS", "ModelCheck", "check_model"]

_DEPTH = 2  # blocks, at least: one that reads what another one wrote
_GRID = (4, 6)  # not square, and of no model's own


@dataclass(frozen=True)
class ModelCheck:
    """What works on a model.

    Attributes:
        kind: Classes of the model, its last block and its attention.
        missing: What the model lacks to be a backbone, in one line; empty for one that has
            attention between all patches of one grid.
        results: `ok` by step, or what went wrong, in one line; empty if something is missing.
    """

    kind: str
    missing: str
    results: dict[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every step works."""
        return set(self.results.values()) == {"ok"}


def check_model(name: str) -> ModelCheck:
    """Check one architecture: record, attention, MaskCut, principal components, intervene.

    The weights are random, and there are only as many blocks as it takes to come to one that
    attends to all patches, two at least: what works depends on neither. All is tried on an image of
    noise, on a grid of patches that is not square.

    Args:
        name: Name of an architecture of timm, or an alias.

    Raises:
        InputError: No model has the name.
    """
    architecture = weights.resolve_name(name).architecture
    with torch.device("meta"):
        whole = timm.create_model(architecture)
    missing = lacking_in(whole)
    if missing:
        return ModelCheck(type(whole).__name__, missing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = weights.load_backbone(architecture, pretrained=False, **_small_sizes(whole))
        except InputError as error:
            return ModelCheck(_kind_of(whole), "", {"load": str(error)})
        _leave_initial_values(model)
    patched = _Patched(model)
    return ModelCheck(_kind_of(model), "", {step: patched.result_of(step) for step in STEPS})


def _small_sizes(whole: nn.Module) -> dict[str, Any]:
    """Sizes of a model of as few blocks as can be, by those of the whole one."""
    blocks = hooks.blocks_of(whole)
    attending = [anatomy_of(block).heads is not None for block in blocks]
    sizes: dict[str, Any] = {"depth": max(_DEPTH, attending.index(True) + 1)}
    keys: list[Any] = [
        getattr(getattr(block, "attn", None), "num_kv_heads", None) for block in blocks
    ]
    # A number for each block of the whole model, where the model takes it; one for all will do.
    if None not in keys and "num_kv_heads" in signature(type(whole)).parameters:
        sizes["num_kv_heads"] = min(keys)
    return sizes


def _kind_of(model: nn.Module) -> str:
    block = hooks.blocks_of(model)[-1]
    parts = [model, block, getattr(block, "attn", None)]
    return ", ".join(type(part).__name__ for part in parts if part is not None)


@torch.no_grad()
def _leave_initial_values(model: nn.Module) -> None:
    """Move biases and scales away from zeros and ones, where they hide what a block does."""
    for parameter in model.parameters():
        if parameter.ndim <= 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


class _Patched:
    """A model and an image of noise of a few patches.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        height, width = patch_hw_of(embedding_of(model))
        self.size = (_GRID[0] * height, _GRID[1] * width)
        noise = np.random.default_rng(0).integers(0, 256, (*self.size, 3), dtype=np.uint8)
        self.rgb: UInt8[np.ndarray, "H W 3"] = noise
        self.feature = hooks.default_feature(model)

    def recorded(self, *sites: Site) -> Activations:
        """Activations of the last block."""
        return Observer(self.model, self.size).activations([self.rgb], sites, [-1])

    def result_of(self, step: str) -> str:
        """Try a step; give `ok`, or the first line of what went wrong."""
        try:
            STEPS[step](self)
        except Exception as error:  # whatever it is, the table says so
            return f"{type(error).__name__}: {error}".partition("\n")[0]
        return "ok"


def _record(patched: _Patched) -> None:
    recorded = patched.recorded(patched.feature, Site.TOKENS)
    for site in (patched.feature, Site.TOKENS):
        features = recorded.patch_features(site)
        _expect(features.shape[-1] == _GRID[0] * _GRID[1], f"{site.value} on the image's grid")
        _expect(bool(features.isfinite().all()), f"{site.value} that is finite")


def _attend(patched: _Patched) -> None:
    recorded = patched.recorded(Site.QUERY, Site.KEY, Site.ATTENTION)
    has_class = Site.CLS_ATTENTION in hooks.available_sites(patched.model)
    patch = None if has_class else (1, 2)
    token = hooks.attention_token(recorded, patch)
    row = recorded[Site.ATTENTION, -1][:, :, token]
    shown = hooks.attention_map(recorded, patch=patch).flatten(2).to(row)
    of_patches = row[..., recorded.num_prefix_tokens :]
    _expect(torch.allclose(shown, of_patches, atol=1e-4), "one row, however it is computed")
    terms = recorded.attention_terms.get(recorded.num_blocks - 1)
    if terms is None or terms.subtracted is None:
        sums = row.sum(-1)
        _expect(torch.allclose(sums, torch.ones_like(sums), atol=1e-4), "a row that sums to one")


def _cut(patched: _Patched) -> None:
    features = patched.recorded(patched.feature).patch_features(patched.feature)[0].double()
    alike = nn.functional.normalize(features, dim=0)
    median = float((alike.T @ alike).median())  # of untrained models, all patches may be alike
    maskcut = segmentation.MaskCut(patched.model, size=patched.size, tau=min(median, 1 - 1e-9))
    instances = maskcut(patched.rgb)
    _expect(instances.masks.shape[1:] == patched.size, "masks of the image's size")
    _expect(len(instances) > 0, "a mask or more")


def _analyse(patched: _Patched) -> None:
    features = patched.recorded(patched.feature).patch_features(patched.feature)[0]
    components = segmentation.principal_components([features.T.double().numpy()])
    _expect(bool(np.isfinite(components.directions).all()), "components that are finite")


def _intervene(patched: _Patched) -> None:
    model = patched.model
    for site in (Site.HEADS, hooks.atom_site(model)):
        before = patched.recorded(site, Site.TOKENS)
        with hooks.intervene(model, {Target(site, -1, 1): ZeroEdit()}):
            after = patched.recorded(site, Site.TOKENS)
        silenced = before[site, -1].clone()
        silenced[..., hooks.channels_of(model, site, -1, 1)] = 0
        _expect(torch.equal(after[site, -1], silenced), f"a silent unit of {site.value}")
        is_same = torch.equal(before[Site.TOKENS, -1], after[Site.TOKENS, -1])
        _expect(not is_same, f"tokens that depend on {site.value}")


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise InputError(f"expected {what}")


STEPS: dict[str, Callable[[_Patched], None]] = {
    "record": _record,
    "attention": _attend,
    "maskcut": _cut,
    "pca": _analyse,
    "intervene": _intervene,
}
"""What is tried, by its name in the table."""
