"""The segmenter of a command: `--method` and its options, and what it reads of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_args

from crate_interp.errors import InputError
from crate_interp.files import read_yaml
from crate_interp.options import option, part_of
from crate_interp.options.choices import Feature
from crate_interp.options.pipelines import find_pipeline
from crate_interp.runs.command import Reading
from crate_interp.runs.options import FeatureOptions
from crate_interp.segmentation.segmenter import SEGMENTERS, Segmenter

if TYPE_CHECKING:
    from crate_interp.runs.command import ImageCommand
    from crate_interp.runs.run import Run

__all__ = [
    "SegmenterReading",
    "method_of",
    "method_option",
    "method_variants",
    "read_for_segmenter",
]

_logger = logging.getLogger(__name__)


@dataclass
class SegmenterReading(Reading):
    """Sites that a segmenter reads, and the segmenter."""

    segmenter: Segmenter = field(kw_only=True)


def method_option(default: str) -> tuple[str, Any, Any]:
    """Make the option `--method`: its name, type and field."""
    help_text = f"segmenter: {', '.join(SEGMENTERS.names())}"
    return "method", str, option(help_text, default)


def method_variants() -> list[list[str]]:
    """List the arguments that choose each segmenter, whose options completion is to know."""
    return [["--method", name] for name in SEGMENTERS.names()]


def method_of(arguments: Sequence[str], default: str = "maskcut") -> str:
    """Find the segmenter that `--method`, or the file of `--config`, names.

    Args:
        arguments: Arguments of the command line, which are not parsed yet.
        default: Name of the segmenter if neither does.

    Raises:
        InputError: The file cannot be read.
    """
    name, file = (_given(option_name, arguments) for option_name in ("--method", "--config"))
    if name is None and file is not None:
        content = read_yaml(find_pipeline(file, ("maskcut",), "--config"))
        name = content.get("method") if isinstance(content, dict) else None
    return default if name is None else str(name)


def read_for_segmenter(
    command: ImageCommand, method: str, run: Run, pictures: int = 0
) -> SegmenterReading:
    """Say what a segmenter reads of the model of a run.

    Args:
        command: Command with the options of the segmenter.
        method: Name of the segmenter.
        run: The run.
        pictures: Number of images, from the first on, whose own pixels are wanted as well.

    Raises:
        InputError: The model lacks what the segmenter reads; an option for features of patches, of
            which the segmenter reads none.
    """
    model = run.observer.model
    if _has_tokens_of_high_norm(model):
        _logger.warning(
            "%s has tokens of high norm, on which normalized cuts are known to collapse "
            "(TokenCut's CorLoc on VOC07: 16.2; with DINO: 68.8)",
            command.model,
        )
    kind: Any = SEGMENTERS[method]
    segmenter = part_of(command, kind).for_model(model)
    cleaning = command.cleaning() if isinstance(command, FeatureOptions) else {}
    if any(cleaning.values()) and not set(segmenter.sites) & set(get_args(Feature)):
        raise InputError(f"--debias, --norm-filter: {method} reads no feature of patches")
    chosen = {own.name: getattr(segmenter, own.name) for own in fields(kind)}
    return SegmenterReading(
        segmenter.sites, segmenter.blocks, pictures, settings=chosen, segmenter=segmenter
    )


def _given(name: str, arguments: Sequence[str]) -> str | None:
    """Value of an option among arguments that are not parsed yet; the last one counts."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument == name:
            value = following
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def _has_tokens_of_high_norm(model: Any) -> bool:
    """Whether patches without content are used as registers: DINOv2, unless it has registers."""
    cfg = model.pretrained_cfg
    name = f"{cfg.get('architecture')}.{cfg.get('tag')}"
    return "dinov2" in name and not model.num_reg_tokens
