"""Runs a model over many images: reading, the forward pass and what follows it overlap.

Processes read images, the caller's thread puts them through the model in batches, and threads
finish them (cut, refine, encode) while the next batch is in the model. What is under way is
bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from crate_interp.data import ImageRecord
from crate_interp.errors import InputError

__all__ = ["Finished", "StageClock", "process_images"]

_logger = logging.getLogger(__name__)

Image = TypeVar("Image")
Output = TypeVar("Output")
Result = TypeVar("Result")


class StageClock:
    """Measures the stages that one image goes through: `with clock("cut"): ...`.

    Attributes:
        seconds: Duration of each stage so far, by its name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what a `with` block takes as time of `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """Result of one image, or why it failed.

    Attributes:
        record: The image.
        result: Result of `finish`; `None` for an image that failed.
        error: Why it failed, with its name; `None` for one that did not.
        seconds: Duration of each stage, by its name.
    """

    record: ImageRecord
    result: Result | None
    error: InputError | None
    seconds: dict[str, float]


def process_images(
    records: Sequence[ImageRecord],
    read: Callable[[ImageRecord], Image],
    forward: Callable[[list[Image], StageClock], Iterable[Output]],
    finish: Callable[[ImageRecord, Image, Output, StageClock], Result],
    *,
    batch_size: int,
    workers: int,
    done: Container[int] = (),
    read_in_threads: bool = False,
) -> Generator[Finished[Result], None, None]:
    """Read images, put them through a model in batches, and finish each, all three at once.

    Batches are cut from the list of all images, done or not: a run that is continued puts the same
    images through the model together, and so gives the same numbers to the last bit. Images that
    fail come as soon as that is known, the others in their order.

    Leave the iteration by `contextlib.closing`: an exception in the caller's loop, Ctrl-C too, then
    stops the processes and threads before it goes on.

    Args:
        records: The images.
        read: Reads one image; a function of a module, so that another process finds it.
        forward: Puts a batch through the model, in the caller's thread; one output per image. Every
            image has its share of the seconds of the stages that it measures.
        finish: Does the rest for one image, in a thread with one torch thread.
        batch_size: Images in a forward pass; the last ones may be fewer.
        workers: Processes that read, and threads that finish. With 0 there is one thread for each,
            and no process.
        done: Ids of images to leave out.
        read_in_threads: Read in `workers` threads instead, where this process may be lost: one that
            others watch over, and that a damaged image may end.

    Yields:
        Every image that is not done.

    Raises:
        InputError: A batch does not fit into the device's memory.
        RuntimeError: `read` or `finish` failed for a reason that does not lie in the image; the
            message names the image.
    """
    batches = deque(records[at : at + batch_size] for at in range(0, len(records), batch_size))
    at_once = max(batch_size, workers)
    reading: deque[list[_Reading]] = deque()
    finishing: deque[_Finishing] = deque()
    with ExitStack() as pools:
        readers = pools.enter_context(_Readers(read, workers, read_in_threads))
        pools.callback(torch.set_num_threads, torch.get_num_threads())  # which threads change
        finishers = ThreadPoolExecutor(max(1, workers), "finish", torch.set_num_threads, (1,))
        pools.callback(finishers.shutdown, wait=True, cancel_futures=True)
        while batches or reading:
            while batches and sum(map(len, reading)) <= at_once:
                batch = batches.popleft()
                if any(record.image_id not in done for record in batch):
                    reading.append([readers.submit(record) for record in batch])
            images: list[tuple[ImageRecord, Image, StageClock]] = []
            for started in reading.popleft() if reading else ():
                clock = StageClock()
                try:
                    image, clock.seconds["read"] = readers.result(started)
                except InputError as error:
                    if started.record.image_id not in done:
                        named = _named(started.record, error)
                        yield Finished(started.record, None, named, clock.seconds)
                else:
                    images.append((started.record, image, clock))
            if any(record.image_id not in done for record, _, _ in images):
                outputs = _forward(forward, images)
                for (record, image, clock), output in zip(images, outputs, strict=True):
                    if record.image_id not in done:
                        future = finishers.submit(finish, record, image, output, clock)
                        finishing.append(_Finishing(record, clock, future))
            while finishing and (len(finishing) > at_once or finishing[0].future.done()):
                yield _collect(finishing.popleft())
        while finishing:
            yield _collect(finishing.popleft())


class _Reading(NamedTuple):
    """An image that is being read, and by whom."""

    record: ImageRecord
    pool: Executor
    future: Future[tuple[Any, float]]


class _Finishing(NamedTuple):
    """An image whose features a thread is working on."""

    record: ImageRecord
    clock: StageClock
    future: Future[Any]


def _forward(
    forward: Callable[[list[Image], StageClock], Iterable[Output]],
    images: Sequence[tuple[ImageRecord, Image, StageClock]],
) -> Iterable[Output]:
    of_batch = StageClock()
    try:
        outputs = forward([image for _, image, _ in images], of_batch)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{len(images)} images at once do not fit into the device's memory: take a smaller "
            f"batch size ({error})"
        ) from error
    for stage, seconds in of_batch.seconds.items():
        for _, _, clock in images:
            clock.seconds[stage] = seconds / len(images)
    return outputs


def _collect(image: _Finishing) -> Finished[Any]:
    try:
        return Finished(image.record, image.future.result(), None, image.clock.seconds)
    except InputError as error:
        return Finished(image.record, None, _named(image.record, error), image.clock.seconds)
    except Exception as error:
        raise RuntimeError(f"{image.record.path}: could not be finished: {error!r}") from error


def _named(record: ImageRecord, error: InputError) -> InputError:
    """The error of an image, with the image's name before it where it lacks it."""
    if str(record.path) in str(error):
        return error
    return InputError(f"{record.path}: {error}")


class _Readers(Generic[Image]):
    """Processes that read images.

    When one dies, by a decoder's crash or the kernel's hand, its pool is lost. Another one is
    opened, and each image that the lost one still had is read by a process of its own: so the one
    image that kills its reader is found, and no other is lost.
    """

    def __init__(
        self, read: Callable[[ImageRecord], Image], workers: int, in_threads: bool
    ) -> None:
        self._read = read
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "read") if in_threads else _open_pool(workers)

    def __enter__(self) -> _Readers[Image]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, record: ImageRecord) -> _Reading:
        try:
            future = self._pool.submit(_timed, self._read, record)
        except BrokenProcessPool:
            self._replace(self._pool)
            future = self._pool.submit(_timed, self._read, record)
        return _Reading(record, self._pool, future)

    def result(self, reading: _Reading) -> tuple[Image, float]:
        """The image and the seconds that reading it took."""
        try:
            return reading.future.result()
        except BrokenProcessPool:
            self._replace(reading.pool)
            return self._read_alone(reading.record)
        except InputError:
            raise
        except Exception as error:
            raise RuntimeError(f"{reading.record.path}: could not be read: {error!r}") from error

    def _replace(self, broken: Executor) -> None:
        if self._pool is broken:
            _logger.warning("a process that reads images died; another one takes its place")
            self._pool = _open_pool(self._workers)

    def _read_alone(self, record: ImageRecord) -> tuple[Image, float]:
        with _open_pool(1) as pool:
            try:
                return pool.submit(_timed, self._read, record).result()
            except BrokenProcessPool:
                raise InputError(
                    f"{record.path}: cannot be read: the process that reads it dies, also when it "
                    "reads nothing else"
                ) from None


def _open_pool(workers: int) -> Executor:
    if not workers:
        return ThreadPoolExecutor(1, "read")
    # Not by fork: this process has threads, and locks that they may hold.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__])  # imported once, not by every process
    if method == "forkserver":
        _start_forkserver()
    return ProcessPoolExecutor(workers, context, _start_reader)


def _start_forkserver() -> None:
    """Start what the readers come from with Ctrl-C blocked, which is the main process's to handle.

    It is for the readers as well: they inherit the mask, so that none of them is interrupted before
    it gets to `_start_reader`.
    """
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # it unblocks Ctrl-C again where it has to start
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _start_reader() -> None:
    """Leave Ctrl-C to the main process, and end with it, however that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)


def _timed(read: Callable[[ImageRecord], Image], record: ImageRecord) -> tuple[Image, float]:
    started = time.perf_counter()
    image = read(record)
    return image, time.perf_counter() - started
