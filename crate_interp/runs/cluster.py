"""Images worked off by workers of a Ray cluster, each with a model on a device of its own.

Shards of whole batches are handed out; what comes back is kept by this process alone, so the
results do not depend on who worked. Ray places the workers and starts them again when they die. A
shard that kills its worker three times is taken apart: its images are tried one by one, those that
kill a worker alone fail, and the others go on in the batches that they were in.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from crate_interp.errors import InputError, shorten
from crate_interp.runs.handing_out import HandingOut, cut_shards
from crate_interp.runs.inference import usable_cores
from crate_interp.runs.worker import Place, Worker

if TYPE_CHECKING:
    from crate_interp.data import ImageRecord
    from crate_interp.hooks import Observer
    from crate_interp.runs.command import ImageCommand
    from crate_interp.runs.options import ModelOptions
    from crate_interp.runs.passes import Outcomes, Pass
    from crate_interp.runs.run import Run

__all__ = ["Cluster", "Workers", "asks_for_workers", "opened_cluster"]

_logger = logging.getLogger(__name__)

_MOST = 4096  # workers
_RESTARTS = 100  # of a worker; one that dies more often, while it loads the model, is given up
_THREADS = 4  # of a worker without a GPU, where the user leaves their number open


@dataclass(frozen=True)
class _Shares:
    """What a cluster is divided into.

    Attributes:
        count: Number of workers.
        threads: Number of processor cores of each.
        gpus: Number of GPUs of each, 0 or 1.
        visible: GPUs of this machine that Ray may use, as `CUDA_VISIBLE_DEVICES`; `None` for all.
    """

    count: int
    threads: int
    gpus: int
    visible: str | None = None


def asks_for_workers(options: ModelOptions) -> bool:
    """Tell whether other processes than this one are to work off the images.

    Raises:
        InputError: `--devices` says something else than how many or which.
    """
    devices = _devices_of(options)
    if options.cluster is not None:
        return True
    return (_gpus_here(options) if devices == "auto" else len(devices)) > 1


@contextmanager
def opened_cluster(options: ModelOptions) -> Iterator[Cluster]:
    """Start Ray on this machine, or join a cluster; what was started ends with the `with` block.

    Args:
        options: Options of the command: `devices`, `cluster` and `device`.

    Raises:
        InputError: Ray is not installed, the cluster does not answer, or it has less than is asked
            for.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "--devices and --cluster need ray: pip install 'crate-interp[ray]'"
        ) from None
    shares = None
    if options.cluster in (None, "local"):
        shares = _shares_of_machine(options)
    with _joined(ray, options.cluster or "local", shares):
        yield Cluster(ray, shares or _shares_of_cluster(options, ray))


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process has joined.

    Args:
        ray: The module.
        shares: What each worker gets.
    """

    ray: Any
    shares: _Shares

    @contextmanager
    def workers(self, command: ImageCommand) -> Iterator[Workers]:
        """Start workers for one model of a command, and end them."""
        workers = Workers(self.ray, self.shares, command)
        try:
            yield workers
        finally:
            workers.end()


class Workers:
    """Works off images by workers of a cluster.

    Args:
        ray: The module, with a cluster joined.
        shares: What each worker gets.
        command: The command, with one model.
    """

    def __init__(self, ray: Any, shares: _Shares, command: ImageCommand) -> None:
        self._ray = ray
        self._command = command
        self._folders: list[str] = []
        self._expected: dict[str, Any] = {}  # what all workers have to have alike
        finishers = max(1, shares.threads // 2) if command.workers is None else command.workers
        place = Place(Path.cwd(), shares.threads, max(1, finishers))
        kind = ray.remote(Worker).options(
            num_cpus=shares.threads,
            num_gpus=shares.gpus,
            max_restarts=_RESTARTS,
            max_task_retries=0,
        )
        own = replace(command, device="cuda") if shares.gpus else command
        self._actors = [kind.remote(own, place) for _ in range(shares.count)]

    def end(self) -> None:
        """End the workers."""
        for actor in self._actors:
            self._ray.kill(actor)

    def load(self, folders: Sequence[str]) -> tuple[Observer, dict[str, Any]]:
        """Let all workers load the model; here, it is on the processor, to be asked for its form.

        Raises:
            InputError: A worker cannot load it, does not see the images, or has other weights,
                versions or settings than the others; it is named.
        """
        from crate_interp.runs.provenance import provenance_of

        self._folders = [folder for folder in folders if Path(folder).is_dir()]  # not URLs
        asked = [actor.about.remote(self._folders) for actor in self._actors]
        here = replace(self._command, device="cpu")
        observer = here.load_observer()
        own = provenance_of(here, observer)
        self._expected = {part: own[part] for part in ("versions", "weights")}
        for answer in asked:
            try:
                provenance = self._answer(answer)
            except self._ray.exceptions.RayActorError as error:
                raise InputError(f"a worker cannot be started: {_last_line(error)}") from error
            # Device and number type are the workers' own; this process may have no GPU.
            self._expected.setdefault("settings", provenance["settings"])
        return observer, {**own, "settings": dict(self._expected["settings"])}

    def process(
        self,
        run: Run,
        work: Pass,
        records: Sequence[ImageRecord],
        done: Container[int],
        in_order: bool,
    ) -> Outcomes:
        """Measure images; they come in their order if that is asked for, else as they are done.

        Raises:
            InputError: A batch does not fit into a worker's memory, or kills every worker.
            RuntimeError: `measure` failed for a reason that does not lie in the image.
        """
        shards = cut_shards(records, run.batch_size, done, len(self._actors), in_order)
        handing_out = HandingOut(
            self._ray, self._actors, self._ask, self._answer, work, run.settings
        )
        return handing_out.results(shards, in_order)

    def _ask(self, actor: Any) -> Any:
        """Ask a worker what it has loaded; the answer waits until it is there again."""
        return actor.about.options(max_task_retries=-1).remote(self._folders)

    def _answer(self, asked: Any) -> dict[str, Any]:
        """Provenance of a worker, which has to be that of the others."""
        host, provenance = self._ray.get(asked)
        if isinstance(provenance, str):
            raise InputError(f"worker on {host}: {provenance}")
        for part, expected in self._expected.items():
            _check_equal(host, part, provenance[part], expected)
        return dict(provenance)


def _check_equal(
    host: str, part: str, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    differing = [name for name in expected if found.get(name) != expected[name]]
    if differing:
        name = differing[0]
        raise InputError(
            f"worker on {host}: {part}: expected {name} {shorten(expected[name])}, as the others "
            f"have, found {shorten(found.get(name))}"
        )


def _devices_of(options: ModelOptions) -> Literal["auto"] | list[str]:
    """Devices that are asked for: `auto`, or one name for each, empty ones where any will do."""
    text = options.devices
    if text is None:
        text = "1" if options.cluster is None else "auto"
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST:
        return [""] * int(text)
    names = text.split(",")
    if all(re.fullmatch(r"cuda:\d{1,3}", name) for name in names) and len(set(names)) == len(names):
        return names
    raise InputError(
        f"--devices: expected a number from 1 to {_MOST}, auto, or names such as cuda:0,cuda:1, "
        f"found {shorten(text)}"
    )


def _gpus_here(options: ModelOptions) -> int:
    """Number of GPUs of this machine that a command may use."""
    if options.device != "auto" and not options.device.startswith("cuda"):
        return 0
    return torch.cuda.device_count()


def _shares_of_machine(options: ModelOptions) -> _Shares:
    devices, gpus, cores = _devices_of(options), _gpus_here(options), usable_cores()
    count = (gpus or max(1, cores // _THREADS)) if devices == "auto" else len(devices)
    if gpus and count > gpus:
        raise InputError(
            f"--devices: expected at most the {gpus} GPUs of this machine, found {count}; with "
            "--device cpu there may be more workers"
        )
    visible = None
    if devices != "auto" and devices[0]:
        numbers = [int(name.removeprefix("cuda:")) for name in devices]
        if max(numbers) >= gpus:
            raise InputError(f"--devices: cuda:{max(numbers)}: this machine has {gpus} GPUs")
        visible = ",".join(_visible_gpus(gpus)[number] for number in numbers)
    return _Shares(count, max(1, cores // count), min(1, gpus), visible)


def _visible_gpus(count: int) -> list[str]:
    """Names of the GPUs that PyTorch numbers from 0, as CUDA's own variable has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(count)]


def _shares_of_cluster(options: ModelOptions, ray: Any) -> _Shares:
    devices = _devices_of(options)
    if devices != "auto" and devices[0]:
        raise InputError("--devices: names of devices are of this machine; give --cluster a number")
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in has]
    gpus = [int(node.get("GPU", 0)) for node in has]
    wanted = options.device == "auto" or options.device.startswith("cuda")
    if wanted and any(gpus):
        usable = zip(gpus, cores, strict=True)
        threads = min(max(1, core // gpu) for gpu, core in usable if gpu)
        shares = _Shares(sum(gpus), threads, 1)
    else:
        threads = min(_THREADS, max(1, min((core for core in cores if core), default=1)))
        shares = _Shares(max(1, sum(core // threads for core in cores)), threads, 0)
    if devices == "auto":
        return shares
    count, most = len(devices), sum(gpus) if shares.gpus else sum(cores)
    if count > most:
        kind = "GPUs" if shares.gpus else "processor cores"
        raise InputError(f"--devices: expected at most the {most} {kind} of the cluster")
    if shares.gpus:
        return replace(shares, count=count)
    return _Shares(count, max(1, min(threads, sum(cores) // count)), 0)


@contextmanager
def _joined(ray: Any, address: str, shares: _Shares | None) -> Iterator[None]:
    """Join a cluster; one of this machine alone is started, and ends with the `with` block."""
    if ray.is_initialized():  # by a notebook: its cluster is used, and goes on
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address}
    if shares is not None:
        if shares.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares.visible
        cores = shares.count * shares.threads
        options |= {"num_cpus": cores, "num_gpus": shares.count * shares.gpus}
        options["include_dashboard"] = False
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--cluster {address}: cannot be used: {_last_line(error)}") from error
    if main:
        signal.signal(signal.SIGTERM, before)  # Ray puts its own there
    # What Ray says of workers that died would go to standard output, which is for results; that
    # they died is logged by us.
    worker: Any = importlib.import_module("ray._private.worker")
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        ray.shutdown()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
