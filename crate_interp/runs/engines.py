"""Where the images of a run are worked off: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from crate_interp.data import ImageRecord
from crate_interp.hooks import Observer
from crate_interp.runs.inference import workers_of
from crate_interp.runs.passes import Outcomes, Pass
from crate_interp.runs.provenance import provenance_of

if TYPE_CHECKING:
    from crate_interp.runs.command import ImageCommand
    from crate_interp.runs.run import Run

__all__ = ["Engine", "ThisProcess", "opened_engines"]


class Engine(Protocol):
    """Works off the images of one model of a command."""

    def load(self, folders: Sequence[str]) -> tuple[Observer, dict[str, Any]]:
        """Load the model, and tell its provenance, without that of the images.

        Args:
            folders: Folders of the images, which whoever works has to see.

        Raises:
            InputError: The model or the device cannot be had.
        """

    def process(
        self,
        run: Run,
        work: Pass,
        records: Sequence[ImageRecord],
        done: Container[int],
        in_order: bool,
    ) -> Outcomes:
        """Measure images.

        Args:
            run: The run, for this process.
            work: What is made of each image.
            records: The images.
            done: Ids of images to leave out.
            in_order: Whether images that do not fail have to come in their order.

        Yields:
            Every image that is not done.
        """


@dataclass(frozen=True)
class ThisProcess:
    """Works off images in this process, as `engine.process_images` does.

    Args:
        command: The command, with one model.
    """

    command: ImageCommand

    def load(self, folders: Sequence[str]) -> tuple[Observer, dict[str, Any]]:
        """Load the model on the device that is asked for."""
        del folders
        observer = self.command.load_observer()
        return observer, provenance_of(self.command, observer)

    def process(
        self,
        run: Run,
        work: Pass,
        records: Sequence[ImageRecord],
        done: Container[int],
        in_order: bool,
    ) -> Outcomes:
        """Measure images, always in their order."""
        del in_order
        return work.process(run, records, done, workers_of(self.command.workers))


@contextmanager
def opened_engines(
    command: ImageCommand,
) -> Iterator[Callable[[ImageCommand], AbstractContextManager[Engine]]]:
    """Open what makes an engine for each model of a command: this process, or a cluster.

    Raises:
        InputError: There is no such cluster, or no such device.
    """
    from crate_interp.runs.cluster import asks_for_workers, opened_cluster

    if asks_for_workers(command):
        with opened_cluster(command) as cluster:
            yield cluster.workers
    else:
        yield lambda part: nullcontext(ThisProcess(part))
