"""Each generation counted once, when it ends: well, badly, or because its caller left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from flask import Response, g

from app.api.inference.caller import CallerLeft
from app.errors import HostlerError
from app.inference_metrics import record_failure, record_left, record_success


class Count:
    """Of one request. ``model`` is empty until it is known to be one, ``tokens`` are those made so far."""

    def __init__(self) -> None:
        self.model = ""
        self.tokens = 0
        self._request_id: str = g.request_id
        self._began = time.perf_counter()

    def succeeded(self) -> None:
        record_success(self.model, self.tokens, time.perf_counter() - self._began)

    def failed(self) -> None:
        record_failure(self.model, self.tokens)

    def left(self) -> None:
        """The caller did."""
        record_left(self.model, self.tokens)

    def following(self, events: Iterator[str]) -> Iterator[str]:
        """``events``, the last of them one that tells of a failure; counted when they end."""
        try:
            yield from events
        except HostlerError as error:
            self.failed()
            yield self._event(error)
        except CallerLeft:
            # nobody is there to be told, nor is it a defect to be traced in the log
            self.left()
        except GeneratorExit:
            self.left()
            raise
        else:
            self.succeeded()

    def _event(self, error: HostlerError) -> str:
        told = {"error": error.detail, "code": error.code, "status": error.status, "request_id": self._request_id}
        return f"data: {json.dumps(told, separators=(',', ':'))}\n\n"


def counted(view: Callable[..., Response]) -> Callable[..., Response]:
    """Hand the view the Count of its request first."""

    @wraps(view)
    def with_count(*args: Any, **kwargs: Any) -> Response:
        count = Count()
        try:
            response = view(count, *args, **kwargs)
        except HostlerError:
            count.failed()
            raise
        except CallerLeft:
            count.left()
            raise
        if not response.is_streamed:
            count.succeeded()
        return response

    return with_count
