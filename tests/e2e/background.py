"""Steps of a story that go on while other tests run."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def run_in_background(*steps: Callable[[], Any]) -> list[Future[Any]]:
    """Run the steps one after the other in a thread of their own; a future for each, in order.

    After a step that fails the others fail with its error. Nobody waits for the thread when the tests end.
    """
    futures: list[Future[Any]] = [Future() for _ in steps]

    def run() -> None:
        error: BaseException | None = None
        for step, future in zip(steps, futures, strict=True):
            if error is None:
                try:
                    future.set_result(step())
                    continue
                except BaseException as raised:  # noqa: BLE001 - it is raised again by whoever asks for the result
                    error = raised
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return futures
