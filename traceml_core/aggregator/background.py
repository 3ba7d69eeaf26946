"""One thread beside the main loop, for what takes long: reports. Ingest never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Runs jobs one after the other on a daemon thread, so that a job that hangs cannot keep the process."""

    def __init__(self) -> None:
        """Start the thread."""
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="traceml-reports", daemon=True).start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` after those before it."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def _run(self) -> None:
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except Exception as error:  # noqa: BLE001 - it rises where the result is asked for
                future.set_exception(error)
