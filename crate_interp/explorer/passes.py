"""Forward passes that are kept, so that a click need not wait for the model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from crate_interp.explorer.pictures import Picture
from crate_interp.hooks import Observer, Site
from crate_interp.structures import Activations

__all__ = ["Passes"]

_Key = tuple[str, str, tuple[int, int], str]  # picture, model, size of the input, precision


@dataclass(eq=False)
class Passes:
    """What was recorded of forward passes, by picture, model and size.

    Args:
        most_bytes: Room for tensors; of more, those that were not asked for the longest go. The
            newest stay, however large they are.
    """

    most_bytes: int = 1 << 30
    _kept: OrderedDict[_Key, Activations] = field(
        init=False, repr=False, default_factory=OrderedDict
    )
    _lock: Lock = field(init=False, repr=False, default_factory=Lock)
    runs: int = field(init=False, default=0)

    def activations(
        self,
        picture: Picture,
        model: str,
        observer: Observer,
        sites: Sequence[Site | str],
        blocks: Sequence[int],
    ) -> Activations:
        """Give activations of a picture, by a forward pass where something is not kept.

        Args:
            picture: The picture.
            model: Name of the model.
            observer: The model at a size.
            sites: Sites, as for `Observer.activations`.
            blocks: Blocks, as for `Observer.activations`.

        Raises:
            InputError: As `Observer.activations`.
        """
        key = (picture.checksum, model, observer.input_hw, observer.precision)
        with self._lock:
            kept = self._kept.get(key)
            wanted = [(str(Site(site).value), block) for site in sites for block in blocks]
            if kept is None or not all(_holds(kept, *place) for place in wanted):
                self.runs += 1
                recorded = observer.activations([picture.rgb], sites, blocks)
                kept = recorded if kept is None else _joined(kept, recorded)
                self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(map(_bytes_of, self._kept.values())) > (
                self.most_bytes
            ):
                self._kept.popitem(last=False)
            return kept


def _holds(kept: Activations, site: str, block: int) -> bool:
    return (site, block % kept.num_blocks) in kept.tensors


def _joined(one: Activations, other: Activations) -> Activations:
    return replace(
        other,
        tensors={**one.tensors, **other.tensors},
        arguments={**one.arguments, **other.arguments},
        attention_terms={**one.attention_terms, **other.attention_terms},
    )


def _bytes_of(kept: Activations) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
