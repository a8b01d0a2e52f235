"""Places inside a model's blocks that can be read, by name."""

from __future__ import annotations

from torch import nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import Anatomy, Atoms, Site, anatomy_of
from crate_interp.models.backbones import blocks_of, has_class_token

__all__ = [
    "Site",
    "anatomy_at",
    "atom_site",
    "atoms_at",
    "available_sites",
    "blocks_of",
    "default_feature",
]


def anatomy_at(model: nn.Module, block: int = -1) -> Anatomy:
    """The anatomy of one block of a model.

    Raises:
        InputError: The model has no such block, or no blocks.
    """
    blocks = blocks_of(model)
    if not -len(blocks) <= block < len(blocks):
        raise InputError(
            f"block {block} is out of range: the model has blocks 0 to {len(blocks) - 1}"
        )
    return anatomy_of(blocks[block])


def available_sites(model: nn.Module, block: int = -1) -> tuple[Site, ...]:
    """The sites that can be recorded at one block of `model`, in the order of `Site`.

    Raises:
        InputError: As `anatomy_at`.
    """
    sites = anatomy_at(model, block).sites
    if has_class_token(model):
        return sites
    return tuple(site for site in sites if site is not Site.CLS_ATTENTION)


def default_feature(model: nn.Module, block: int = -1) -> Site:
    """The papers' feature of patches: CRATE's shared subspace projection, otherwise the keys.

    Raises:
        InputError: As `anatomy_at`.
    """
    return Site.SUBSPACE if Site.SUBSPACE in available_sites(model, block) else Site.KEY


def atoms_at(model: nn.Module, block: int = -1) -> Atoms:
    """The sparse codes of a block in CRATE families, otherwise the neurons of its MLP.

    Raises:
        InputError: No such block, or one with neither.
    """
    atoms = anatomy_at(model, block).atoms
    if atoms is None:
        raise InputError(
            f"{type(model).__name__} has neither sparse codes nor neurons at block {block}; it has "
            f"{', '.join(site.value for site in available_sites(model, block))}"
        )
    return atoms


def atom_site(model: nn.Module, block: int = -1) -> Site:
    """Site that the atoms of a block are read at: `codes` in CRATE families, otherwise `neurons`.

    Raises:
        InputError: As `atoms_at`.
    """
    return atoms_at(model, block).site
