"""As much of Ray as the package uses, in one process: what is sent is pickled, workers may die."""

import logging
from functools import partial

import cloudpickle

_RESTARTS = 10


class _DiedError(Exception):
    pass


class _TaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class StandInRay:
    """Calls are done when their result is asked for.

    Args:
        dies: Says of a call whether the worker dies in it: method, number of the worker, arguments,
            and number of the item that it would send.
    """

    class exceptions:  # noqa: N801
        RayActorError = WorkerCrashedError = NodeDiedError = _DiedError
        OutOfMemoryError = ObjectLostError = _DiedError
        RayTaskError = _TaskError

    def __init__(self, dies=lambda method, worker, arguments, item: False):
        self.dies = dies
        self.workers = []
        self.ended = 0
        self.most_at_once = 0

    def is_initialized(self):
        return True

    def put(self, value):
        return cloudpickle.dumps(value)

    def get(self, result):
        return result()

    def wait(self, results, num_returns):
        self.most_at_once = max(self.most_at_once, len(results))
        return results[-num_returns:], results[:-num_returns]  # not the order they were asked in

    def kill(self, worker):
        self.ended += 1

    def remote(self, kind):
        return _Kind(self, kind)


class _Kind:
    def __init__(self, ray, kind):
        self.ray, self.kind = ray, kind

    def options(self, **options):
        assert options["max_restarts"] > _RESTARTS
        return self

    def remote(self, *arguments):
        self.ray.workers.append(_Worker(self.ray, len(self.ray.workers), self.kind, arguments))
        return self.ray.workers[-1]


class _Worker:
    def __init__(self, ray, number, kind, arguments):
        self.ray, self.number = ray, number
        self.make = cloudpickle.dumps((kind, arguments))
        self.worker = None
        self.about = _Method(self, "about")
        self.work = _Method(self, "work")

    def living(self):
        if self.worker is None:
            kind, arguments = cloudpickle.loads(self.make)
            before = logging.getLogger("crate_interp").handlers[:]
            self.worker = kind(*arguments)
            logging.getLogger("crate_interp").handlers[:] = before  # it is the user's process, too
        return self.worker

    def die(self):
        self.worker = None
        raise _DiedError("killed")


class _Method:
    def __init__(self, worker, name, retries=0):
        self.worker, self.name, self.retries = worker, name, retries

    def options(self, num_returns=1, max_task_retries=0):
        assert (num_returns == "streaming") == (self.name == "work")
        return _Method(self.worker, self.name, max_task_retries)

    def remote(self, *arguments):
        arguments = [
            cloudpickle.loads(value if isinstance(value, bytes) else cloudpickle.dumps(value))
            for value in arguments
        ]
        if self.name == "about":
            return lambda: self.call(arguments)
        return _Stream(self.worker, arguments)

    def call(self, arguments):
        dies = self.worker.ray.dies
        tries = _RESTARTS if self.retries else 1
        if all(dies(self.name, self.worker.number, arguments, 0) for _ in range(tries)):
            self.worker.die()
        return cloudpickle.loads(cloudpickle.dumps(self.worker.living().about(*arguments)))


class _Stream:
    def __init__(self, worker, arguments):
        self.worker, self.arguments = worker, arguments
        self.items, self.number = None, 0

    def __next__(self):
        worker = self.worker
        if worker.ray.dies("work", worker.number, self.arguments, self.number):
            self.items = iter(())
            return worker.die
        if self.items is None:
            self.items = worker.living().work(*self.arguments)
        try:
            sent = next(self.items)
        except StopIteration:
            raise
        except Exception as error:
            return partial(_fail, error)
        self.number += 1
        return partial(cloudpickle.loads, cloudpickle.dumps(sent))


def _fail(error):
    raise _TaskError(error) from error
