"""Records what a backbone computes, inside a context manager that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from numbers import Integral
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from crate_interp.errors import InputError, shorten
from crate_interp.hooks.own_passes import hooked, original_of, uncompiled
from crate_interp.hooks.resolution import grid_size_of
from crate_interp.hooks.sites import (
    ATTENTION_SITES,
    PLACES,
    PROJECTION_SITES,
    Site,
    available_sites,
    blocks_of,
)
from crate_interp.models.subspace import SubspaceAttention
from crate_interp.structures import Activations

__all__ = ["Recorder", "record"]


# No `Exception`: when one passes, PyTorch goes through the hooks, which other threads may change.
class _EverythingRecorded(BaseException):  # not an error: ends a forward pass early
    pass


class Recorder:
    """Context manager that records the sites of the last forward pass run inside it.

    Made by `record`. Fused attention stays on: queries and keys are read where they are projected,
    and attention is computed from them beside the model, only if asked for.
    """

    def __init__(
        self, model: nn.Module, sites: Sequence[Site], blocks: Sequence[int], stop_early: bool
    ) -> None:
        self._model = model
        self._sites = sites
        self._blocks = blocks
        self._stop_early = stop_early
        self._tensors: dict[tuple[str, int], Tensor] = {}
        self._grid_hw: tuple[int, int] | None = None
        self._hooks = ExitStack()

    @property
    def activations(self) -> Activations:
        """What was recorded, by (site, block); readable inside the `with` block and after it.

        Raises:
            InputError: No forward pass has run through the recorded blocks.
        """
        wanted = [(site.value, block) for block in self._blocks for site in self._sites]
        missing = [key for key in wanted if key not in self._tensors]
        if missing or self._grid_hw is None:
            raise InputError(
                f"nothing was recorded at {missing or wanted}: run the model inside the `with` "
                "block, in the same thread (before PyTorch 2.6 a compiled model runs no hooks: run "
                "the original)"
            )
        return Activations(
            tensors={key: self._tensors[key] for key in wanted},
            num_blocks=len(blocks_of(self._model)),
            num_prefix_tokens=int(getattr(self._model, "num_prefix_tokens", 0)),
            grid_hw=self._grid_hw,
        )

    def __enter__(self) -> Recorder:
        try:
            self._hooks.enter_context(uncompiled())
            self._hook(self._model.get_submodule("patch_embed"), self._start)
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
        projected = [site for site in self._sites if site in PROJECTION_SITES]
        if projected:
            attention = block.get_submodule("attn")
            if ATTENTION_SITES & set(projected):
                self._hook(attention, _refuse_mask, before=True)
            self._hook(
                attention.get_submodule("qkv"),
                lambda _, __, ___, output: self._keep_projected(
                    attention, projected, number, output
                ),
            )
        for site in self._sites:
            if site not in PROJECTION_SITES:
                self._hook_place(block, site, number)

    def _hook_place(self, block: nn.Module, site: Site, number: int) -> None:
        path, enters = PLACES[site]
        module = block.get_submodule(path)
        if enters:
            self._hook(module, lambda _, args, __: self._keep(site, number, args[0]), before=True)
        else:
            self._hook(module, lambda _, __, ___, output: self._keep(site, number, output))

    def _start(self, _: nn.Module, args: tuple[Tensor], __: Any, ___: Tensor) -> None:
        self._tensors.clear()
        self._grid_hw = grid_size_of(self._model, (args[0].shape[-2], args[0].shape[-1]))

    def _keep(self, site: Site, block: int, tensor: Tensor) -> None:
        self._tensors[site.value, block] = tensor.detach()
        if self._stop_early and len(self._tensors) == len(self._sites) * len(self._blocks):
            raise _EverythingRecorded

    def _keep_projected(
        self, attention: nn.Module, sites: Sequence[Site], block: int, output: Tensor
    ) -> None:
        query, key, value = _heads(attention, output.detach())
        for site in sites:
            if site is Site.ATTENTION:
                tensor = _attention_rows(attention, query, key)
            elif site is Site.CLS_ATTENTION:
                tensor = _attention_rows(attention, query[:, :, :1], key)[:, :, 0]
            else:
                heads = {Site.QUERY: query, Site.VALUE: value}.get(site, key)
                tensor = heads.transpose(1, 2).flatten(2)
            self._keep(site, block, tensor)


def _heads(attention: Any, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, K, N, d) from the output of the projection."""
    # Not `reshape` with -1, which no empty batch can have.
    heads = projected.unflatten(-1, (-1, attention.num_heads, attention.head_dim))
    heads = heads.permute(2, 0, 3, 1, 4)
    if isinstance(attention, SubspaceAttention):
        return heads[0], heads[0], heads[0]
    query, key, value = heads.unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value


def _attention_rows(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    scores: Tensor = (query * attention.scale) @ key.transpose(-2, -1)
    return scores.softmax(dim=-1)


def _refuse_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if len(args) > 1 or kwargs.get("attn_mask") is not None or kwargs.get("is_causal"):
        raise InputError("attention with a mask cannot be recorded")


def _listed(name: str, values: Any, kind: type) -> list[Any]:
    """What is wanted as a list; one value needs none."""
    if isinstance(values, kind):  # a text is a sequence itself, of letters
        return [values]
    found = list(values) if isinstance(values, Iterable) else [values]
    for value in found:
        if not isinstance(value, kind) or isinstance(value, bool):
            what = "names of sites" if kind is str else "whole numbers"
            raise InputError(f"{name}: expected {what}, found {shorten(value)}")
    return found


def record(
    model: nn.Module,
    sites: Sequence[Site | str] | Site | str,
    blocks: Sequence[int] | int = (-1,),
    *,
    stop_early: bool = False,
) -> Recorder:
    """Record activations of a vision transformer.

        with record(model, sites=[Site.KEY], blocks=[-1]) as recorder:
            model(pixels)
        keys = recorder.activations[Site.KEY, -1]

    Several forward passes may run inside; the last one is kept. Those of other threads, on the same
    model, are not seen. When the block is left, also by an exception, no hook stays on the model.

    Args:
        model: A CRATE family model or a timm vision transformer.
        sites: What to record; `Site` members or their names.
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
    wanted: list[Site] = []
    for name in names:
        try:
            wanted.append(Site(name))
        except ValueError:
            known = ", ".join(site.value for site in Site)
            raise InputError(f"unknown site {shorten(name)}; sites are {known}") from None
    for block in numbers:
        available = available_sites(model, block)
        lacking = [site.value for site in wanted if site not in available]
        if lacking:
            raise InputError(
                f"{type(model).__name__} has no site {', '.join(lacking)} at block {block}; "
                f"it has {', '.join(site.value for site in available)}"
            )
    places = dict.fromkeys(int(block) % count for block in numbers)
    return Recorder(model, tuple(dict.fromkeys(wanted)), tuple(places), stop_early)
