"""Shards of images on their way to workers and back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crate_interp.errors import InputError
from crate_interp.runs.worker import Shard

if TYPE_CHECKING:
    from crate_interp.data import ImageRecord
    from crate_interp.engine import Finished
    from crate_interp.runs.passes import Outcomes, Pass

__all__ = ["HandingOut", "cut_shards"]

_logger = logging.getLogger(__name__)

_DEATHS = 3  # of workers over one shard, or one image, before it is held to be the cause
_BATCHES = 16  # of a shard, at most: at the end, others wait for the one who has it
_AHEAD = 2  # shards for each worker that are kept until those before them are done


def cut_shards(
    records: Sequence[ImageRecord],
    batch_size: int,
    done: Container[int],
    workers: int,
    in_order: bool,
) -> Iterator[Shard]:
    """Cut images into shards of whole batches, smaller ones towards the end.

    Args:
        records: The images, done or not: batches are cut from all of them, so that an image goes
            through the model with the same others whoever asks.
        batch_size: Number of images in a batch.
        done: Ids of images to leave out.
        workers: Number of workers.
        in_order: One batch a shard, as results have to wait for those before them.
    """
    number, at, step = 0, 0, max(1, batch_size)
    while at < len(records):
        batches = -(-(len(records) - at) // step)
        fair = batches // (4 * workers)
        end = at + step * (1 if in_order else min(_BATCHES, max(1, fair)))
        left = {record.image_id for record in records[at:end] if record.image_id not in done}
        if left:
            yield Shard(number, records[at:end], left)
            number += 1
        at = end


class HandingOut:
    """Hands shards to workers, takes in what comes back, and does again what is lost.

    Args:
        ray: The module.
        actors: The workers.
        ask: Asks a worker that was started again whether it is ready.
        check: Reads the answer.
        work: What is made of each image.
        settings: Settings of the run.
    """

    def __init__(
        self,
        ray: Any,
        actors: Sequence[Any],
        ask: Callable[[Any], Any],
        check: Callable[[Any], object],
        work: Pass,
        settings: Mapping[str, Any],
    ) -> None:
        self._ray = ray
        self._idle = list(actors)
        self._ask = ask
        self._check = check
        self._work = work
        self._settings = settings
        self._sent = ray.put(work)
        self._again: deque[Shard] = deque()  # shards to do again, and images to try alone
        self._streams: dict[Any, tuple[Any, Shard]] = {}
        self._waking: dict[Any, Any] = {}  # worker that was asked, by the answer to come
        errors = ray.exceptions
        self._losses = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )

    def results(self, shards: Iterator[Shard], in_order: bool) -> Outcomes:
        """Hand out shards until all are done.

        Args:
            shards: The shards, numbered from 0.
            in_order: Whether images have to come shard by shard.

        Yields:
            Images, of each shard in the order in which they are done.

        Raises:
            InputError: No worker can go on, or a shard kills workers and none of its images alone.
            RuntimeError: `measure` failed for a reason that does not lie in the image.
        """
        held: dict[int, list[Finished[Any]]] = {}
        complete: set[int] = set()
        first = 0
        following = next(shards, None)
        ahead = _AHEAD * len(self._idle)
        while following is not None or self._again or self._streams:
            while self._idle and (shard := self._again.popleft() if self._again else following):
                if shard is following:
                    if in_order and shard.number >= first + ahead:
                        break
                    following = next(shards, None)
                self._start(shard)
            if not self._streams and not self._waking:
                raise InputError("no worker is left: all died while they loaded the model")
            waited_for = [*self._streams, *self._waking]
            for arrived in self._ray.wait(waited_for, num_returns=1)[0]:
                if arrived in self._waking:
                    self._woken(arrived)
                    continue
                shard, finished, is_complete = self._take(arrived)
                if not in_order:
                    yield from finished
                    continue
                held.setdefault(shard.number, []).extend(finished)
                if is_complete:
                    complete.add(shard.number)
                while first in complete:
                    yield from held.pop(first)
                    first += 1

    def _start(self, shard: Shard) -> None:
        actor = self._idle.pop()
        method = actor.work.options(num_returns="streaming")
        self._streams[method.remote(self._sent, self._settings, shard)] = (actor, shard)

    def _take(self, stream: Any) -> tuple[Shard, list[Finished[Any]], bool]:
        """Take what a worker has sent: the images, and whether the shard is complete."""
        actor, shard = self._streams[stream]
        try:
            sent = self._ray.get(next(stream))
        except StopIteration:
            del self._streams[stream]
            self._idle.append(actor)
            if shard.trial_of is not None:
                self._tried(shard.trial_of)
            return shard, [], shard.trial_of is None
        except self._losses as error:
            del self._streams[stream]
            self._waking[self._ask(actor)] = actor
            if shard.left:
                self._lost(shard, error)
            return shard, [], not shard.left  # it may have died after the last image
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"a worker stopped: {error.cause or error}") from error
        for level, message in sent.logged:
            _logger.log(level, "%s", message)
        if sent.error is not None:
            raise sent.error
        if shard.trial_of is not None:
            return shard, [], False  # its batch is measured as a whole
        shard.left -= {image.record.image_id for image in sent.finished}
        return shard, sent.finished, False

    def _lost(self, shard: Shard, error: Exception) -> None:
        """Do again what a dead worker had, or find out what kills it."""
        shard.deaths += 1
        records = [record for record in shard.records if record.image_id in shard.left]
        names = f"{records[0].path}" + f" to {records[-1].path}" * (len(records) > 1)
        _logger.warning(
            "a worker died over %s (time %d): %s", names, shard.deaths, str(error).split("\n")[0]
        )
        if shard.deaths < _DEATHS:
            self._again.appendleft(shard)
        elif shard.trial_of is not None:
            shard.trial_of.fatal.append(records[0])
            self._tried(shard.trial_of)
        elif not shard.taken_apart:
            shard.taken_apart, shard.trials = True, len(records)
            self._again += [Shard(shard.number, [one], {one.image_id}, shard) for one in records]
        else:
            raise InputError(
                f"{names}: these images together kill every worker, none of them alone: take a "
                "smaller --batch-size"
            )

    def _tried(self, shard: Shard) -> None:
        """Go on with a shard once each of its images was tried alone."""
        shard.trials -= 1
        if shard.trials:
            return
        reason = f"kills the worker that measures it, {_DEATHS} times, also when it is alone"
        refused = {record.image_id: reason for record in shard.fatal}
        self._work = replace(self._work, refused={**self._work.refused, **refused})
        self._sent = self._ray.put(self._work)
        shard.deaths = 0
        self._again.appendleft(shard)

    def _woken(self, asked: Any) -> None:
        """Give a worker that was started again work, unless it dies before it has a model."""
        actor = self._waking.pop(asked)
        try:
            self._check(asked)
        except self._losses as error:
            _logger.warning("a worker cannot be started again: %s", str(error).split("\n")[0])
        else:
            self._idle.append(actor)
