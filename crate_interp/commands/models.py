"""List of the backbones and the text models, with their sizes and the places of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crate_interp import analysis, models, weights
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.runs.command import Command

if TYPE_CHECKING:
    from torch import nn

    from crate_interp.weights import ModelName
    from crate_interp.weights.sources import WeightSource

__all__ = ["Models"]

_HEADINGS = ("MODEL", "ALIAS", "PARAMETERS", "PATCH", "INPUT", "CLASSES", "HERE", "WEIGHTS FROM")


@dataclass(frozen=True)
class Models(Command):
    """List models: sizes, weights, and whether these are here."""

    group: ClassVar[str] = "manage"

    pattern: str | None = option("names to list, with * and ?", None, positional=True)
    check: bool = option(
        "try recording, attention, MaskCut, components and interventions on each, with random "
        "weights and two blocks; without a pattern, on every vision transformer of timm",
        False,
    )

    def run(self) -> int:
        """Print the models whose name or alias matches; without a pattern, ours and the aliased.

        Raises:
            InputError: No model matches, or, with --check, none of images.
        """
        if self.check:
            return _check(_to_check(self.pattern))
        text_models = weights.list_text_models(self.pattern)
        try:
            names = weights.list_names(self.pattern)
        except InputError:
            if not text_models:
                raise
            names = []
        aliases = {weights.resolve_name(alias): alias for alias in weights.ALIASES}
        rows = [_HEADINGS, *(_row_of(name, aliases.get(name, "")) for name in names)]
        rows += map(_row_of_text, text_models)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return 0


def _to_check(pattern: str | None) -> list[str]:
    text_models = weights.list_text_models(pattern)
    try:
        return weights.architectures_to_check(pattern)
    except InputError as error:
        if not text_models:
            raise
        raise InputError(
            f"--check tries models of images, and {text_models[0]} is a text model: expected a "
            "pattern of architectures of timm or of ours, or none for all vision transformers"
        ) from error


def _check(architectures: list[str]) -> int:
    """Print what works on each, and return 1 if something fails that should work."""
    width = max(map(len, architectures))
    steps = {step: max(len(step), len("fails")) + 2 for step in analysis.STEPS}
    heading = "".join(step.upper().ljust(size) for step, size in steps.items())
    print(f"{'MODEL':{width}}  {heading}KIND, OR WHAT IS MISSING")
    counts = {"pass": 0, "lack something": 0, "fail": 0}
    for name in architectures:
        checked = analysis.check_model(name)
        results = [checked.results.get(step, "-") for step in steps]
        cells = "".join(
            (result if result in ("ok", "-") else "fails").ljust(size)
            for result, size in zip(results, steps.values(), strict=True)
        )
        wrong = [f"{step}: {text}" for step, text in checked.results.items() if text != "ok"]
        note = "; ".join(filter(None, [checked.kind, checked.missing, *wrong]))
        print(f"{name:{width}}  {cells}{note}", flush=True)
        outcome = "pass" if checked.passes else "lack something" if checked.missing else "fail"
        counts[outcome] += 1
    print(f"{len(architectures)} models: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return min(counts["fail"], 1)


def _row_of(name: ModelName, alias: str) -> tuple[str, ...]:
    try:  # drawing no numbers is 5 times as fast
        model = weights.create_on_meta(name, weight_init="skip")
    except InputError:  # NaFlexViT always draws them
        model = weights.create_on_meta(name)
    return (
        str(name),
        alias,
        _size_of(model),
        "x".join(map(str, models.patch_hw_of(models.embedding_of(model)))),
        "x".join(map(str, models.input_hw_of(model))),
        str(model.num_classes),
        *_place_of(weights.weight_source(name)),
    )


def _row_of_text(name: str) -> tuple[str, ...]:
    model = weights.plan_text_model(name)
    tokens = f"{model.context} tokens"
    place = _place_of(weights.text_source(name))
    return (name, "", _size_of(model), "-", tokens, str(model.vocabulary), *place)


def _size_of(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M"


def _place_of(source: WeightSource | None) -> tuple[str, str]:
    """Whether weights are here, and where they come from."""
    if source is None:
        return "-", "-"
    size = f", {source.size_mb} MB" if source.size_mb else ""
    return "yes" if weights.find_local_weights(source) else "no", f"{source}{size}"
