"""Batches: some items at once, results in order; the first failure, or a caller that leaves, ends the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from app.api.inference.caller import Caller, CallerLeft
from app.errors import HostlerError

Result = dict[str, Any]


def each(work: Callable[[str], Result], items: Sequence[str], field: str, caller: Caller, at_once: int) -> list[Result]:
    """``work`` of each item, in order. Raises CallerLeft, or the error of the first item that failed, with its index.

    Under gevent the threads are greenlets.
    """
    with ThreadPoolExecutor(min(at_once, len(items)), thread_name_prefix="batch") as pool:
        results = [pool.submit(work, item) for item in items]
        wait(results, return_when=FIRST_EXCEPTION)
        # who works on at another item of a batch that is lost sees that nobody waits for it
        caller.leave()
        pool.shutdown(wait=True, cancel_futures=True)
    for index, result in enumerate(results):
        error = _failure(result)
        if isinstance(error, HostlerError):
            raise _of_item(error, field, index)
        if error is not None and not isinstance(error, CallerLeft):
            raise error
    if any(_failure(result) is not None for result in results):
        raise CallerLeft
    return [result.result() for result in results]


def _failure(result: Future[Result]) -> BaseException | None:
    return CallerLeft() if result.cancelled() else result.exception()


def _of_item(error: HostlerError, field: str, index: int) -> HostlerError:
    error.detail = f"{field}[{index}]: {error.detail}"
    error.errors = {f"{field}.{index}": [error.detail], **error.errors}
    error.extra |= {"index": index}
    return error
