"""A sum over images that a stopped run goes on with.

For a result that adds up what is measured, and where a file per image would take too much room. The
sums and the ids of the images in them are one file with a checksum, which is written as a whole:
every half a minute, and when the pass ends or is stopped. A process that is killed loses what was
added since. Images are added in their order, those of a continued run behind the others, so that
the sums are the same to the last bit; an image that failed before and can be read now comes last.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Shaped

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_arrays, write_whole
from crate_interp.runs.number_files import naming, text_in

__all__ = ["Accumulator", "Fold"]

_logger = logging.getLogger(__name__)

SAVE_EVERY = 30.0  # seconds
_PAUSE = 20  # times as long as writing took: large sums on a slow disk cost at most 5 % of the time


class Accumulator(Protocol):
    """Sums over images, which can be taken over by another process."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Add one image: its id, then by name what was measured of it."""

    def state(self) -> dict[str, Shaped[np.ndarray, ...]]:
        """Give all sums, as arrays by name."""

    def restore(self, state: Mapping[str, Shaped[np.ndarray, ...]]) -> None:
        """Go on from what `state` gave.

        Raises:
            InputError: An array is missing, or of another type or shape; nothing is changed.
        """


class Fold:
    """Sums over images, and the file that keeps them.

    Args:
        path: The file; sums go on from one that is there, unless it is damaged.
        accumulator: Sums of no image yet.

    Attributes:
        image_ids: Ids of the images that were added, in that order.
    """

    def __init__(self, path: Path, accumulator: Accumulator) -> None:
        self.image_ids: list[int] = []
        self._path = path
        self._accumulator = accumulator
        self._adding = False
        if path.exists():
            self._restore()
        self._kept = len(self.image_ids)  # number of images that the file has
        self._due = time.monotonic() + SAVE_EVERY

    def add(self, image_id: int, measured: Mapping[str, Any]) -> None:
        """Add one image, and write the file if it is time.

        Args:
            image_id: Id of the image.
            measured: Measurements of the image, as the accumulator takes them.

        Raises:
            InputError: The accumulator refuses it, or the file cannot be written.
        """
        self._adding = True  # Ctrl-C may come between any two lines
        self._accumulator.add(image_id, **measured)
        self.image_ids.append(image_id)
        self._adding = False
        if time.monotonic() >= self._due:
            self._save()

    def close(self) -> None:
        """Write what was added since the last time, unless the last image is half added.

        Raises:
            InputError: The file cannot be written.
        """
        if not self._adding and len(self.image_ids) > self._kept:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        state = {**self._accumulator.state(), "image_ids": np.array(self.image_ids, np.int64)}
        with naming(self._path), write_whole(self._path) as file:
            np.savez(file, **{**state, "sha256": np.array(_checksum_of(state))})  # type: ignore[arg-type]
        self._kept, now = len(self.image_ids), time.monotonic()
        self._due = now + max(SAVE_EVERY, _PAUSE * (now - started))

    def _restore(self) -> None:
        try:
            state = read_arrays(self._path, self._path.stat().st_size)
            expected = text_in(state.pop("sha256", np.array("")), "sha256")
            if (actual := _checksum_of(state)) != expected:
                raise InputError(f"expected checksum {shorten(expected)}, found {actual}")
            image_ids = state.pop("image_ids").tolist()
            self._accumulator.restore(state)
        except InputError as error:
            reason = str(error).removeprefix(f"{self._path}: ")
            _logger.warning("%s: damaged, its images are done again: %s", self._path, reason)
        else:
            self.image_ids = image_ids


def _checksum_of(arrays: Mapping[str, Shaped[np.ndarray, ...]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
