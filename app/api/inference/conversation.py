"""What one request of the model API asks of replicas, in their dialect, and what it makes of their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from app.api.inference.caller import Caller
from app.api.inference.door import Address, Answer, AnswerBroke, Door, route
from app.api.inference.refusals import refusal_of
from app.engines.dialects.base import (
    Ask,
    BadAnswer,
    ChatSampling,
    EngineFailed,
    Message,
    NotSpoken,
    Piece,
    Sampling,
)
from app.engines.dialects.conversations import as_text, read_text_piece
from app.engines.dialects.prompts import knows_no_chats
from app.errors import HostlerError, NoReadyReplica, NotOffered, ReplicaBadAnswer, ReplicaRefused, ReplicasBusy
from app.usecases.chat import Room
from app.usecases.served import Target

#: A replica that was written down as ready is routed to within a moment; a request that comes first waits so long.
SEEN_S = 1.0
SEEN_LOOK_S = 0.03
LONGEST_LOOK_S = 0.3


@dataclass
class Conversation:
    """``headers`` go with every request; ``replica_id`` is who answered last.

    ``tries``: how many replicas are asked before the first byte of an answer. ``patience_s``: how long a request waits
    while no replica is in, as when the only one is being replaced; those that do need a seat in the ``room``.
    """

    door: Door
    target: Target
    headers: Mapping[str, str]
    caller: Caller
    tries: int
    patience_s: float = 0.0
    room: Room | None = None
    replica_id: str = ""

    def tokenize(self, text: str) -> dict[str, Any]:
        """``{token_ids, num_tokens}``. Raises HostlerError, CallerLeft."""
        with understood():
            ask = self.target.dialect.tokenize(self.target.sent, text)
            with self.asked(ask) as answer:
                ids = self.target.dialect.read_tokens(answer.json())
        return {"token_ids": list(ids), "num_tokens": len(ids)}

    def generate(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """``{token_ids, text, num_generated, finish_reason}``. Raises HostlerError, CallerLeft."""
        with understood():
            ask = self.target.dialect.generate(self.target.sent, prompt, sampling)
            with self.asked(ask) as answer:
                made = self.target.dialect.read_generation(answer.json())
        ids = list(made.token_ids or ())
        return {
            "token_ids": ids,
            "text": whole_characters(made.text),
            "num_generated": len(ids) if made.tokens is None else made.tokens,
            "finish_reason": made.finish_reason,
        }

    def stream(self, prompt: str, sampling: Sampling) -> Generator[Piece]:
        """What ``generate`` gives, as it is made; the last piece is ``done``. Raises HostlerError, CallerLeft."""
        with understood():
            ask = self.target.dialect.generate(self.target.sent, prompt, sampling, stream=True)
            with self.asked(ask) as answer:
                for data in answer.events():
                    piece = self.target.dialect.read_piece(data)
                    yield piece
                    if piece.done:
                        return
        raise ReplicaBadAnswer("The replica's stream broke off before its end. Try again.")

    def chat(self, messages: Sequence[Message], sampling: ChatSampling) -> Generator[Piece]:
        """The next turn as it is made; the last piece is ``done``. Raises HostlerError, CallerLeft.

        What breaks off before its first text begins again at another replica. A model that has no template for a
        conversation goes on from its text.
        """
        with understood():
            ask = self.target.dialect.chat(self.target.sent, messages, sampling, stream=True)
            try:
                yield from self._turn(ask, self.target.dialect.read_chat_piece)
            except ReplicaRefused as refused:
                # only before its first piece
                if not knows_no_chats(refused.detail):
                    raise
                yield from self._turn(as_text(ask), read_text_piece)

    def _turn(self, ask: Ask, read: Callable[[str], Piece]) -> Generator[Piece]:
        tries_left, began = self.tries, False
        while True:
            tries_left -= 1
            try:
                with self.asked(ask) as answer:
                    for data in answer.events():
                        piece = read(data)
                        began = began or bool(piece.text)
                        yield piece
                        if piece.done:
                            return
                raise AnswerBroke("The replica's stream broke off before its end. Try again.")
            except AnswerBroke:
                if began or not tries_left or self.target.replica_id:
                    raise

    @contextmanager
    def asked(self, ask: Ask) -> Iterator[Answer]:
        """An answer that is 200, of whichever replica gives one. Raises HostlerError, CallerLeft."""
        patience_s = self.patience_s or (SEEN_S if self.target.ready else 0.0)
        until, look_s, tries_left = time.monotonic() + patience_s, SEEN_LOOK_S, self.tries
        with ExitStack() as seat:
            while True:
                with self._sent(ask) as answer:
                    self.replica_id = answer.replica_id or self.replica_id
                    if answer.status == 200:
                        seat.close()
                        yield answer
                        return
                    refused = refusal_of(answer)
                    tries_left -= 1
                    # what is too large for HAProxy's buffer it cannot send again by itself
                    again = answer.failed and answer.status == 502 and tries_left > 0 and not self.target.replica_id
                if not again:
                    if not (self._may_pass(refused) and time.monotonic() < until):
                        raise refused
                    if self.room is not None and look_s == SEEN_LOOK_S:
                        seat.enter_context(self.room.seat())
                    time.sleep(look_s)
                    look_s = min(look_s * 1.5, LONGEST_LOOK_S)

    def _may_pass(self, refused: HostlerError) -> bool:
        """Whether no replica was asked. With patience also that none took it: one that died is out only in a moment,
        and who waited for a busy one has no time left."""
        if refused.extra.get("source") != "gateway":
            return False
        return refused.code == NoReadyReplica.code or (bool(self.patience_s) and refused.code == ReplicasBusy.code)

    def _sent(self, ask: Ask) -> AbstractContextManager[Answer]:
        if ask.method == "GET":
            return self.door.get(self._address(), ask.path, self.headers, self.caller)
        return self.door.post(self._address(), ask.path, ask.body, self.headers, self.caller)

    def _address(self) -> Address:
        if self.target.replica_id:
            return "X-Hostler-Replica", self.target.replica_id
        if self.target.service_id:
            return "X-Hostler-Service", self.target.service_id
        return route(self.target.route)


def whole_characters(text: str) -> str:
    """``text`` with halves of surrogate pairs joined, and lone ones, which no reader takes, replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextmanager
def understood() -> Iterator[None]:
    """What an engine says otherwise than its dialect has it, as the errors of the model API."""
    try:
        yield
    except NotSpoken as error:
        raise NotOffered(f"{error}. Ask another model, or serve this one with such an engine.") from error
    except BadAnswer as error:
        raise ReplicaBadAnswer(f"The replica's answer is not what its API says: {error}. Try again.") from error
    except EngineFailed as error:
        raise ReplicaBadAnswer(f"The replica failed: {error}. Try again.") from error
