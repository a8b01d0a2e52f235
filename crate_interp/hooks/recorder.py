"""Records what a backbone computes, inside a context manager that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from inspect import signature
from numbers import Integral
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from crate_interp.errors import InputError, shorten
from crate_interp.hooks.own_passes import hooked, original_of, uncompiled
from crate_interp.hooks.resolution import grid_size_of
from crate_interp.hooks.sites import Site, available_sites, blocks_of
from crate_interp.models.anatomy import DERIVED, Heads, Part, Place, anatomy_of
from crate_interp.models.backbones import embedding_of, has_class_token, prefix_tokens_of
from crate_interp.structures import Activations, AttentionTerms

__all__ = ["Recorder", "record"]


# No `Exception`: when one passes, PyTorch goes through the hooks, which other threads may change.
class _EverythingRecorded(BaseException):  # not an error: ends a forward pass early
    pass


class Recorder:
    """Context manager that records the sites of the last forward pass run inside it.

    Made by `record`. Fused attention stays on: queries and keys are read where they are projected,
    and attention is computed from them beside the model, only if asked for. The anatomy of a block
    says where.
    """

    def __init__(
        self, model: nn.Module, sites: Sequence[Site], blocks: Sequence[int], stop_early: bool
    ) -> None:
        self._model = model
        self._sites = sites
        self._blocks = blocks
        self._stop_early = stop_early
        self._tensors: dict[tuple[str, int], Tensor] = {}
        self._arguments: dict[int, dict[str, Any]] = {}
        self._terms: dict[int, AttentionTerms] = {}
        self._grid_hw: tuple[int, int] | None = None
        self._hooks = ExitStack()

    @property
    def activations(self) -> Activations:
        """Recorded tensors by (site, block); readable inside the `with` block and after it.

        Raises:
            InputError: No forward pass has run through the recorded blocks.
        """
        keys = [(site.value, block) for block in self._blocks for site in self._sites]
        missing = [key for key in keys if key not in self._tensors]
        if missing or self._grid_hw is None:
            raise InputError(
                f"nothing was recorded at {missing or keys}: run the model inside the `with` "
                "block, in the same thread (before PyTorch 2.6 a compiled model runs no hooks: run "
                "the original)"
            )
        blocks = blocks_of(self._model)
        heads = anatomy_of(blocks[self._blocks[0]]).heads
        return Activations(
            tensors={key: self._tensors[key] for key in keys},
            num_blocks=len(blocks),
            num_prefix_tokens=prefix_tokens_of(self._model),
            grid_hw=self._grid_hw,
            num_heads=None if heads is None else heads.num_heads,
            arguments=dict(self._arguments),
            attention_terms=dict(self._terms),
            has_class_token=has_class_token(self._model),
        )

    def __enter__(self) -> Recorder:
        try:
            self._hooks.enter_context(uncompiled())
            embedding = embedding_of(self._model)
            if embedding is not None:
                self._hook(embedding, self._start)
            if {Site.TOKENS_IN, Site.TOKENS} & set(self._sites):  # a pass can go on from there
                self._hook_arguments()
            for block in self._blocks:
                self._hook_block(block)
        except BaseException:
            self._hooks.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._hooks.close()
        return kind is _EverythingRecorded

    def _hook(self, module: nn.Module, hook: Any, before: bool = False) -> None:
        self._hooks.enter_context(hooked(module, hook, before))

    def _hook_block(self, number: int) -> None:
        block = blocks_of(self._model)[number]
        anatomy = anatomy_of(block)
        for site in self._sites:
            if site in anatomy.places:
                self._hook_site(number, site, anatomy.places[site])
        derived = [site for site in self._sites if site not in anatomy.places]
        if derived and anatomy.heads is not None:
            heads = anatomy.heads
            if any(DERIVED[site].is_masked for site in derived):
                self._hook(block.get_submodule(heads.module), _refuse_mask, before=True)
            derive = partial(self._keep_derived, heads, derived, number)
            self._hook_place(block, heads.source, derive)

    def _hook_site(self, number: int, site: Site, place: Place) -> None:
        tensors: dict[str, Tensor] = {}

        def keep(part: Part, tensor: Tensor, _: Mapping[str, Any]) -> None:
            tokens = tensor.flatten(1, 2) if tensor.ndim == 4 else tensor  # SAM's have a grid
            tensors[part.path] = tokens[..., part.start :][..., : part.channels]
            if len(tensors) == len(place.parts):
                in_order = [tensors.pop(one.path) for one in place.parts]
                self._keep(
                    site, number, in_order[0] if len(in_order) == 1 else torch.cat(in_order, -1)
                )

        block = blocks_of(self._model)[number]
        for part in place.parts:
            self._hook_place(block, place._replace(path=part.path), partial(keep, part))

    def _hook_place(
        self, block: nn.Module, place: Place, keep: Callable[[Tensor, Mapping[str, Any]], None]
    ) -> None:
        module = block.get_submodule(place.path)
        if place.enters:
            self._hook(module, lambda *call: keep(call[1][0], _by_name(*call)), before=True)
        else:
            self._hook(module, lambda *call: keep(call[-1], _by_name(*call[:-1])))

    def _hook_arguments(self) -> None:
        for number, block in enumerate(blocks_of(self._model)):
            heads = anatomy_of(block).heads
            if heads is not None and heads.arguments:
                keep = partial(self._keep_arguments, heads.arguments, number)
                self._hook(block, lambda *call, keep=keep: keep(_by_name(*call)), before=True)

    def _start(self, embedding: nn.Module, args: tuple[Tensor], _: Any, __: Tensor) -> None:
        self._tensors.clear()
        self._arguments.clear()
        self._terms.clear()
        if isinstance(embedding, nn.Embedding):  # of a text, whose tokens are one row
            self._grid_hw = (1, args[0].shape[-1])
        elif args[0].ndim != 4:  # NaFlexViT takes patches, of a grid for each image
            raise InputError(
                f"expected images of shape (B, 3, H, W), found an input of {tuple(args[0].shape)}"
            )
        else:
            self._grid_hw = grid_size_of(self._model, (args[0].shape[-2], args[0].shape[-1]))

    def _keep(self, site: Site, block: int, tensor: Tensor) -> None:
        self._tensors[site.value, block] = tensor.detach()
        if self._stop_early and len(self._tensors) == len(self._sites) * len(self._blocks):
            raise _EverythingRecorded

    @torch.no_grad()
    def _keep_derived(
        self,
        heads: Heads,
        sites: Sequence[Site],
        block: int,
        tensor: Tensor,
        arguments: Mapping[str, Any],
    ) -> None:
        split = heads.split(tensor, arguments)
        if split.terms is not None and Site.QUERY in sites:
            self._terms[block] = split.terms()
        for site in sites:
            self._keep(site, block, DERIVED[site].compute(split))

    def _keep_arguments(
        self, names: Sequence[str], block: int, arguments: Mapping[str, Any]
    ) -> None:
        self._arguments[block] = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in arguments.items()
            if name in names
        }


def _by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call but the first, by their names; Gemma's rotary position has no keyword."""
    names = list(signature(type(module).forward).parameters)[2:] if args[1:] else ()
    return {**dict(zip(names, args[1:], strict=False)), **kwargs}


def _refuse_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    arguments = _by_name(module, args, kwargs)
    if arguments.get("attn_mask") is not None or arguments.get("is_causal"):
        raise InputError("attention with a mask cannot be recorded")


def _listed(name: str, values: Any, kind: type) -> list[Any]:
    """The values as a list; a single value becomes a list of one."""
    if isinstance(values, kind):  # a text is a sequence itself, of letters
        return [values]
    members = list(values) if isinstance(values, Iterable) else [values]
    for value in members:
        if not isinstance(value, kind) or isinstance(value, bool):
            what = "names of sites" if kind is str else "whole numbers"
            raise InputError(f"{name}: expected {what}, found {shorten(value)}")
    return members


def record(
    model: nn.Module,
    sites: Sequence[Site | str] | Site | str,
    blocks: Sequence[int] | int = (-1,),
    *,
    stop_early: bool = False,
) -> Recorder:
    """Record activations of a vision transformer, or of a text model: a text is a grid of one row.

        with record(model, sites=[Site.KEY], blocks=[-1]) as recorder:
            model(pixels)
        keys = recorder.activations[Site.KEY, -1]

    Several forward passes may run inside; the last one is kept. Those of other threads, on the same
    model, are not seen. When the block is left, also by an exception, no hook stays on the model.

    Args:
        model: A CRATE family model, a timm vision transformer, or a text model.
        sites: Sites to record; `Site` members or their names.
        blocks: Where, from 0; negative numbers count from the last block; one needs no list.
        stop_early: End the forward pass as soon as everything is recorded. The `with` block is
            left at that point, so the forward pass must be its last statement.

    Returns:
        A context manager whose `activations` map (site, block) to detached tensors.

    Raises:
        InputError: No such block, a site that a block of this model does not have, or what is no
            name or number.
    """
    model = original_of(model)
    count = len(blocks_of(model))
    names, numbers = _listed("sites", sites, str), _listed("blocks", blocks, Integral)
    if not names or not numbers:
        raise InputError(f"nothing to record: sites {names}, blocks {numbers}")
    chosen: list[Site] = []
    for name in names:
        try:
            chosen.append(Site(name))
        except ValueError:
            known = ", ".join(site.value for site in Site)
            raise InputError(f"unknown site {shorten(name)}; sites are {known}") from None
    for block in numbers:
        available = available_sites(model, block)
        lacking = [site.value for site in chosen if site not in available]
        if lacking:
            raise InputError(
                f"{type(model).__name__} has no site {', '.join(lacking)} at block {block}; "
                f"it has {', '.join(site.value for site in available)}"
            )
    places = dict.fromkeys(int(block) % count for block in numbers)
    return Recorder(model, tuple(dict.fromkeys(chosen)), tuple(places), stop_early)
