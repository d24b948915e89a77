"""The model API from the client's side: what is asked, and how a stream of tokens is read."""

from __future__ import annotations

import json
from typing import Any

from hostler.errors import ApiError, api_error_type
from hostler.wire import Call, Json

#: An answer that is whole may take as long as the server waits for it.
GENERATE_TIMEOUT_S = 330.0
#: Longest silence of a stream; a replica may think so long before its first token.
SILENCE_S = 330.0


def model_call(path: str, body: Json, *, model_id: str | None, sampling: Json | None = None, **more: Any) -> Call:
    """A request of the model API. It changes nothing, so it may be sent again."""
    named = {"model_id": model_id} if model_id is not None else {}
    wanted = {name: value for name, value in (sampling or {}).items() if value is not None}
    return Call(
        "POST", path, body={**body, **wanted, **named}, read_timeout_s=GENERATE_TIMEOUT_S, harmless=True, **more
    )


class TokenStream:
    """The state of one stream of tokens. A client asks it what to send and tells it what comes."""

    def __init__(self, prompt: str, *, model_id: str | None, sampling: Json) -> None:
        call = model_call("/stream/generate", {"prompt": prompt}, model_id=model_id, sampling=sampling)
        self.call = Call(
            call.method,
            call.path,
            body=call.body,
            # what fails before the first token is a problem
            headers={"Accept": "text/event-stream, application/problem+json"},
            read_timeout_s=SILENCE_S,
        )
        self.is_over = False

    def take(self, data: str) -> str:
        """One event: its piece of the text, empty for the last. Raises ApiError when it tells of a failure."""
        try:
            told = json.loads(data)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ApiError("the stream is not Hostler's: an event holds no JSON object", code="not_hostler")
        if "error" in told:
            status, code = told.get("status"), str(told.get("code") or "error")
            status = status if isinstance(status, int) else 502
            raise api_error_type(status, code)(
                str(told["error"]),
                status=status,
                code=code,
                request_id=str(told.get("request_id") or ""),
                body=told,
            )
        self.is_over = told.get("done") is True
        return str(told.get("token", ""))
