"""Numbers of a training run that figures and its page show: loss, accuracy and probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from crate_interp import training
from crate_interp.errors import InputError, shorten

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from crate_interp.training import Columns

__all__ = ["ShownNumber", "choose_numbers", "shown_values"]

_METRICS = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "accuracy": "validation accuracy (%)",
}
_SHARES = {"accuracy", "attention", "sparsity", "ap", "ap50", "ap75", "tokencut", "pca"}
_SPELLING = {"miou": "mIoU", "iou": "IoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75", "f": "F"}
_SPELLING |= {"tokencut": "TokenCut", "pca": "PCA"}


class ShownNumber(NamedTuple):
    """A number with its title, and its columns: several if every block has one.

    Attributes:
        title: Number, size, block and unit, in words.
        columns: Names of the columns, of metrics.csv or of probes.csv.
        is_probe: Whether they are of probes.csv.
        by_block: Whether there is a column for each block.
    """

    title: str
    columns: list[str]
    is_probe: bool
    by_block: bool = False


def _is_share(column: str) -> bool:
    """Whether a column has shares of 1, which are drawn in percent."""
    return not _SHARES.isdisjoint(column.split("_"))


def shown_values(column: str, values: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Numbers of a column as the figure has them: shares in percent, non-zeros for zeros."""
    if column.startswith("sparsity"):
        return 100 * (1 - values)
    return 100 * values if _is_share(column) else values


def choose_numbers(probes: Sequence[Columns], names: Sequence[str] | None) -> list[ShownNumber]:
    """Numbers to draw: those that are named, or all at the first of their sizes and blocks."""
    columns = dict.fromkeys(name for table in probes for name in table if name != "step")
    groups: dict[str, list[str]] = {}
    first: dict[str, str] = {}  # name of a group, by number
    for column in columns:
        parts = training.column_of(column)
        group = parts._replace(layer=None).name
        groups.setdefault(group, []).append(column)
        first.setdefault(parts.number, group)
    numbers = {name: ShownNumber(title, [name], False) for name, title in _METRICS.items()}
    numbers |= {name: _probed(own) for name, own in groups.items()}
    shown = {**{name: name for name in _METRICS}, **first}
    if names is None:
        return [numbers[name] for name in shown.values()]
    for name in names:
        if name not in numbers and name not in shown:
            raise InputError(
                f"numbers: expected some of {', '.join(numbers)}, found {shorten(name)}"
            )
    return [numbers[name if name in numbers else shown[name]] for name in names]


def _probed(columns: list[str]) -> ShownNumber:
    """A number of probes.csv, by its columns."""
    number, size, cut_block, layer = training.column_of(columns[0])
    words = number.split("_")
    title = " ".join(_SPELLING.get(word, word) for word in words)
    if words == ["sparsity"]:
        title = "codes that are not zero"
    places = [f"{size} px"] if size is not None else []
    places += [f"block {cut_block}"] if cut_block is not None else []
    title += f" at {', '.join(places)}" if places else ""
    if _is_share(number):
        title += " (%)"
    elif words == ["coding", "rate"]:
        title += " (nats)"
    return ShownNumber(title, columns, is_probe=True, by_block=layer is not None)
