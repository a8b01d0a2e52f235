"""The layouts of released weight files: which tensor of a file is which parameter of ours."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError

__all__ = ["LAYOUTS", "Layout", "Renamed", "Rule", "rename", "rename_backbone"]

logger = logging.getLogger(__name__)

Operation = Callable[[Tensor], Tensor]
PLACEHOLDERS = {"i": r"\d+", "p": "weight|bias", "any": ".+"}


def _transposed(dims: int, join: int | None = None) -> Operation:
    """Make a JAX kernel of so many dimensions the weight of a Linear, `join` and the next one."""

    def operation(kernel: Tensor) -> Tensor:
        if kernel.ndim != dims:
            raise CheckpointError(f"expected {dims} dimensions, found shape {tuple(kernel.shape)}")
        return (kernel if join is None else kernel.flatten(join, join + 1)).t()

    return operation


def _convolution(kernel: Tensor) -> Tensor:
    if kernel.ndim != 4:
        raise CheckpointError(f"expected 4 dimensions, found shape {tuple(kernel.shape)}")
    return kernel.permute(3, 2, 0, 1)


def _one_third(stacked: Tensor) -> Tensor:
    """Query, key and value of a CLIPA tower, which must be the one shared projection."""
    if stacked.ndim < 1 or len(stacked) % 3:
        raise CheckpointError(f"expected 3 D rows, found shape {tuple(stacked.shape)}")
    query, key, value = stacked.chunk(3)
    if not (torch.equal(query, key) and torch.equal(query, value)):
        raise CheckpointError(
            "its thirds (query, key, value) differ, by up to "
            f"{max((query - key).abs().max().item(), (query - value).abs().max().item()):.3g}; "
            "CRATE has one projection for the three"
        )
    return query


@dataclass(frozen=True)
class Rule:
    """A tensor of a layout, the parameter of ours that it is, and how to turn one into the other.

    Attributes:
        theirs: Key with placeholders: `{i}` a number, `{p}` weight or bias, `{any}` anything.
        ours: Our key with the same placeholders.
        operation: From their tensor to ours; `None` leaves it as it is.
    """

    theirs: str
    ours: str
    operation: Operation | None = None


@dataclass(frozen=True)
class Layout:
    """A layout of weight files.

    Attributes:
        name: For messages.
        marks: Keys by which a file of this layout is known, all of them (`{i}` as in rules).
        rules: For every tensor of a backbone.
        aside: Patterns of keys that belong to other parts of a released model than the backbone.
        head_is_projection: The head maps to a text tower's space, not to classes.
        bias_free_norms: Norms without a bias, which is then zero.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    aside: tuple[str, ...] = ()
    head_is_projection: bool = False
    bias_free_norms: bool = False


def _layer_rules(prefix: str) -> tuple[Rule, ...]:
    """The layers of the official PyTorch code of CRATE, CRATE-alpha and CRATE-MAE."""
    return (
        Rule(prefix + ".0.norm.{p}", "blocks.{i}.norm1.{p}"),
        Rule(prefix + ".0.fn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
        Rule(prefix + ".0.fn.to_out.0.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule(prefix + ".1.norm.{p}", "blocks.{i}.norm2.{p}"),
        Rule(prefix + ".1.fn.weight", "blocks.{i}.mlp.weight"),
        Rule(prefix + ".1.fn.D", "blocks.{i}.mlp.D"),
        Rule(prefix + ".1.fn.D1", "blocks.{i}.mlp.D1"),
    )


_OFFICIAL = (
    Rule("cls_token", "cls_token"),
    Rule("pos_embedding", "pos_embed"),
    *_layer_rules("transformer.layers.{i}"),
    Rule("mlp_head.0.{p}", "fc_norm.{p}"),
    Rule("mlp_head.1.{p}", "head.{p}"),
)
_JAX_BLOCK = "Transformer/encoderblock_{i}/"
_JAX_MSSA = _JAX_BLOCK + "MultiHeadDotProductSubspaceAttention_0/"
_CLIPA_BLOCK = "visual.transformer.resblocks.{i}."

# In the order in which marks are looked for.
LAYOUTS = (
    Layout(
        "CRATE-alpha JAX",
        (_JAX_MSSA + "proj/kernel",),
        (
            Rule("cls", "cls_token"),
            Rule("pos_embedding", "pos_embed"),
            Rule("embedding/kernel", "patch_embed.proj.weight", _convolution),
            Rule("embedding/bias", "patch_embed.proj.bias"),
            Rule(_JAX_BLOCK + "LayerNorm_0/scale", "blocks.{i}.norm1.weight"),
            Rule(_JAX_BLOCK + "LayerNorm_0/bias", "blocks.{i}.norm1.bias"),
            Rule(_JAX_MSSA + "proj/kernel", "blocks.{i}.attn.qkv.weight", _transposed(3, 1)),
            Rule(_JAX_MSSA + "out/kernel", "blocks.{i}.attn.proj.weight", _transposed(3, 0)),
            Rule(_JAX_BLOCK + "LayerNorm_1/scale", "blocks.{i}.norm2.weight"),
            Rule(_JAX_BLOCK + "LayerNorm_1/bias", "blocks.{i}.norm2.bias"),
            Rule(_JAX_BLOCK + "OvercompleteISTABlock_0/D", "blocks.{i}.mlp.D"),
            Rule(_JAX_BLOCK + "OvercompleteISTABlock_0/D1", "blocks.{i}.mlp.D1"),
            Rule("encoder_norm/scale", "fc_norm.weight"),
            Rule("encoder_norm/bias", "fc_norm.bias"),
            Rule("head/kernel", "head.weight", _transposed(2)),
            Rule("head/bias", "head.bias"),
        ),
    ),
    Layout(
        "CRATE-alpha PyTorch",
        ("transformer.layers.{i}.1.fn.D1",),
        (*_OFFICIAL, Rule("conv1.{p}", "patch_embed.proj.{p}")),
    ),
    Layout(
        "CRATE PyTorch with a layer before the classifier",
        ("to_patch_embedding.1.weight", "head.weight"),
        (
            Rule("to_patch_embedding.1.{p}", "patch_embed.proj.norm.{p}"),
            Rule("to_patch_embedding.2.{p}", "patch_embed.proj.linear.{p}"),
            Rule("to_patch_embedding.3.{p}", "patch_embed.norm.{p}"),
            *_OFFICIAL[:-1],
            Rule("mlp_head.1.{p}", "pre_logits.{p}"),
            Rule("head.{p}", "head.{p}"),
        ),
    ),
    Layout(
        "CRATE PyTorch",
        ("to_patch_embedding.1.weight",),
        (
            Rule("to_patch_embedding.1.{p}", "patch_embed.proj.norm.{p}"),
            Rule("to_patch_embedding.2.{p}", "patch_embed.proj.linear.{p}"),
            Rule("to_patch_embedding.3.{p}", "patch_embed.norm.{p}"),
            *_OFFICIAL,
        ),
    ),
    Layout(
        "CRATE-MAE",
        ("blocks.{i}.layers.0.0.fn.qkv.weight",),
        (
            Rule("cls_token", "cls_token"),
            # the released encoder adds the positions that are named the decoder's
            Rule("decoder_pos_embed", "pos_embed"),
            Rule("patch_embed.proj.{p}", "patch_embed.proj.{p}"),
            *_layer_rules("blocks.{i}.layers.0"),
            Rule("norm.{p}", "norm.{p}"),
        ),
        aside=(r"pos_embed", r"mask_token", r"decoder_(embed|blocks|norm|pred)\..*"),
    ),
    Layout(
        "CRATE-alpha-CLIPA",
        (_CLIPA_BLOCK + "mlp.c_fc",),
        (
            Rule("visual.class_embedding", "cls_token", lambda tensor: tensor[None, None]),
            Rule("visual.positional_embedding", "pos_embed", lambda tensor: tensor[None]),
            Rule("visual.conv1.weight", "patch_embed.proj.weight"),
            Rule(_CLIPA_BLOCK + "ln_1.{p}", "blocks.{i}.norm1.{p}"),
            Rule(_CLIPA_BLOCK + "attn.in_proj_weight", "blocks.{i}.attn.qkv.weight", _one_third),
            Rule(_CLIPA_BLOCK + "attn.out_proj.weight", "blocks.{i}.attn.proj.weight"),
            Rule(_CLIPA_BLOCK + "ln_2.{p}", "blocks.{i}.norm2.{p}"),
            Rule(_CLIPA_BLOCK + "mlp.c_fc", "blocks.{i}.mlp.D"),
            Rule(_CLIPA_BLOCK + "mlp.c_proj", "blocks.{i}.mlp.D1"),
            Rule("visual.ln_post.{p}", "fc_norm.{p}"),
            Rule("visual.proj", "head.weight", _transposed(2)),
        ),
        aside=(
            r"positional_embedding|text_projection|logit_scale|(transformer|ln_final)\..*",
            r"token_embedding\..*",
        ),
        head_is_projection=True,
        bias_free_norms=True,
    ),
    Layout(
        "timm",
        ("blocks.{i}.norm1.weight",),
        (Rule("{any}", "{any}"),),
        # DINO's projection head; the decoder in our files of CRATE-MAE
        aside=(r"head\.(mlp|last_layer)\..*", r"decoder\..*"),
    ),
)


@dataclass(frozen=True, eq=False)
class Renamed:
    """The tensors of a file under our keys.

    Attributes:
        layout: The file's layout.
        tensors: By our key.
        theirs: The file's key, by our key.
        unknown: Keys of the file that its layout does not have.
        num_heads: Attention heads, where the layout tells them.
    """

    layout: Layout
    tensors: dict[str, Tensor]
    theirs: dict[str, str]
    unknown: list[str]
    num_heads: int | None

    def their_name(self, ours: str) -> str:
        """Name one of our keys as the file does, or would if it had it."""
        if ours in self.theirs:
            return self.theirs[ours]
        for rule in self.layout.rules:
            match = _pattern(rule.ours).fullmatch(ours)
            if match:
                return rule.theirs.format(**match.groupdict())
        return ours


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template)
    for name, values in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{values})")
    return re.compile(pattern)


def rename(
    state_dict: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename and convert the tensors that a layout has a rule for.

    Args:
        state_dict: Tensors by the file's keys.
        layout: Its layout; the first rule that fits a key counts.

    Returns:
        The tensors by our keys, and the file's keys by ours.

    Raises:
        CheckpointError: A tensor is not of the form that its rule expects.
    """
    tensors, theirs = {}, {}
    for key, tensor in state_dict.items():
        rule, match = _rule_for(key, layout)
        if rule is None or match is None:
            continue
        ours = rule.ours.format(**match.groupdict())
        try:
            tensors[ours] = rule.operation(tensor) if rule.operation else tensor
        except CheckpointError as error:
            raise CheckpointError(f"{key}: {error}") from error
        theirs[ours] = key
    if layout.bias_free_norms:
        for key in [key for key in tensors if re.search(r"norm\d?\.weight$", key)]:
            tensors.setdefault(key.removesuffix("weight") + "bias", torch.zeros_like(tensors[key]))
    return tensors, theirs


def _rule_for(key: str, layout: Layout) -> tuple[Rule, re.Match[str]] | tuple[None, None]:
    for rule in layout.rules:
        match = _pattern(rule.theirs).fullmatch(key)
        if match:
            return rule, match
    return None, None


def _has_marks(keys: Iterable[str], layout: Layout) -> bool:
    return all(any(_pattern(mark).fullmatch(key) for key in keys) for mark in layout.marks)


def rename_backbone(state_dict: Mapping[str, Tensor]) -> Renamed | None:
    """Find the layout of a state dict and give its tensors our keys.

    Args:
        state_dict: Tensors by the file's keys.

    Returns:
        The tensors that belong to a backbone; `None` if the layout is none of ours.

    Raises:
        CheckpointError: A tensor is not of the form that the layout has.
    """
    layout = next((layout for layout in LAYOUTS if _has_marks(state_dict, layout)), None)
    if layout is None:
        return None
    aside = {key for key in state_dict if any(re.fullmatch(a, key) for a in layout.aside)}
    if aside:
        logger.info("%s: left aside, not the backbone's: %s", layout.name, ", ".join(sorted(aside)))
    rest = {key: tensor for key, tensor in state_dict.items() if key not in aside}
    tensors, theirs = rename(rest, layout)
    known = set(theirs.values())
    unknown = [key for key in rest if key not in known]
    kernels = (rest[key] for key in rest if _pattern(_JAX_MSSA + "proj/kernel").fullmatch(key))
    num_heads = next((kernel.shape[1] for kernel in kernels), None)
    return Renamed(layout, tensors, theirs, unknown, num_heads)
