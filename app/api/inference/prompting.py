"""One prompt to a service: a chat where its model knows chats, and asked again where an answer broke off unseen."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from app.api.inference.chatless import Chatless, Key
from app.api.inference.conversation import Conversation, understood, whole_characters
from app.api.inference.door import AnswerBroke
from app.engines.dialects import prompts
from app.engines.dialects.base import Ask
from app.engines.dialects.prompts import CHAT, COMPLETIONS, Part, Prompt, Said
from app.errors import HostlerError, NotOffered

Told = TypeVar("Told")


@dataclass
class Prompting:
    """``path`` is the route that answered."""

    conversation: Conversation
    prompt: Prompt
    chatless: Chatless
    key: Key
    path: str = field(default="", init=False)

    def whole(self) -> Said:
        """The whole answer. Raises HostlerError, CallerLeft."""
        said = self._either(self._whole)
        return Said(whole_characters(said.text), said.finish_reason, said.usage)

    def stream(self) -> Generator[Part]:
        """The answer as it is made; once the first part is there, who answers is settled.

        The last part is ``done``. Raises HostlerError, CallerLeft.
        """
        first, rest = self._either(self._begun)
        with closing(rest):
            yield from chain((first,), rest)

    def _either(self, attempt: Callable[[str], Told]) -> Told:
        """``attempt`` as a chat, else as a text to go on from."""
        tries_chat = self.key not in self.chatless
        if tries_chat:
            try:
                return self._again(attempt, CHAT)
            except HostlerError as refused:
                if not _knows_no_chats(refused):
                    raise
        try:
            told = self._again(attempt, COMPLETIONS)
        except NotOffered:
            self.chatless.forget(self.key)
            raise
        if tries_chat:
            self.chatless.add(self.key)
        return told

    def _again(self, attempt: Callable[[str], Told], path: str) -> Told:
        """What broke off before the caller saw any of it is asked of another replica."""
        self.path = path
        tries_left = self.conversation.tries
        while True:
            tries_left -= 1
            try:
                return attempt(path)
            except AnswerBroke:
                if tries_left <= 0:
                    raise

    def _whole(self, path: str) -> Said:
        with (
            understood(),
            self.conversation.asked(prompts.ask(self.prompt, self.conversation.target.sent, path)) as answer,
        ):
            return prompts.read(path, answer.json())

    def _begun(self, path: str) -> tuple[Part, Generator[Part]]:
        parts = self._parts(path)
        return next(parts), parts

    def _parts(self, path: str) -> Generator[Part]:
        """From the first that says something: what comes before it shows only that the model was found."""
        with (
            understood(),
            self.conversation.asked(
                prompts.ask(self.prompt, self.conversation.target.sent, path, stream=True)
            ) as answer,
        ):
            for data in answer.events():
                part = prompts.read_part(path, data)
                if part != Part():
                    yield part
                if part.done:
                    return
        raise AnswerBroke("The replica's stream broke off before its end. Try again.")

    def _ask(self, path: str, *, stream: bool = False) -> Ask:
        return prompts.ask(self.prompt, self.conversation.target.sent, path, stream=stream)


def loaded_models(conversation: Conversation) -> list[dict[str, Any]]:
    """What one replica has loaded: ``id`` and ``max_model_len`` of each model. Raises HostlerError, CallerLeft."""
    with understood(), conversation.asked(prompts.models()) as answer:
        return prompts.read_models(answer.json())


def _knows_no_chats(refused: HostlerError) -> bool:
    if refused.extra.get("source") == "gateway":
        return False
    # the replica has no such route, or its model no template for it
    return isinstance(refused, NotOffered) or prompts.knows_no_chats(refused.detail)
