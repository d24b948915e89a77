"""Asking the hub: a question in a thread of its own, given up when its time is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from httpx2 import InvalidURL
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from app.errors import GatedModel, HostlerError, HubBadAnswer, HubUnavailable, UnknownHubModel
from app.hub.call import Call, Client, HubNonsense, HubTrouble, current, origin_of
from app.settings import Settings

Answer = TypeVar("Answer")

#: Longest wait for all of one question. Callers are promised ten seconds.
PATIENCE_S = 8.0
#: Questions at one time: a hub that hangs holds no more threads than these. Under gevent they are greenlets.
AT_ONCE = 8
_RETRY_AFTER_S = 10
#: What is compressed could become any size.
_HEADERS = {"accept-encoding": "identity"}
#: What reading garbage ends with, in a library that trusts its hub.
_GARBAGE = (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError)

_places = threading.BoundedSemaphore(AT_ONCE)


def endpoint_of(settings: Settings) -> str:
    """The hub that is asked: the settings', else the library's own."""
    return (settings.hf_endpoint or constants.ENDPOINT).rstrip("/")


def ask(settings: Settings, question: Callable[[HfApi], Answer], *, of_one_model: bool) -> Answer:
    """What ``question`` finds out from the hub of ``settings``.

    Raises HubUnavailable within PATIENCE_S, HubBadAnswer; ``of_one_model`` also UnknownHubModel, GatedModel.
    """
    endpoint = endpoint_of(settings)
    if constants.is_offline_mode():
        raise _unavailable(endpoint, "HF_HUB_OFFLINE is set where Hostler was started")
    call = Call(origin_of(endpoint), time.monotonic() + PATIENCE_S)
    api = HfApi(endpoint, token=settings.hf_token or False, headers=_HEADERS)
    answers: list[Answer] = []
    errors: list[Exception] = []

    def work() -> None:
        current.set(call)
        try:
            _use_our_client()
            answers.append(question(api))
        except (HubTrouble, HfHubHTTPError, InvalidURL, *_GARBAGE) as error:
            errors.append(error)
        finally:
            _places.release()

    if not _places.acquire(timeout=PATIENCE_S):
        raise _unavailable(endpoint, f"{AT_ONCE} questions before this one wait for it")
    asking = threading.Thread(target=work, name="hub", daemon=True)
    asking.start()
    asking.join(call.left_s())
    if answers:
        return answers[0]
    if errors:
        told = _told(endpoint, settings, errors[0])
        if isinstance(told, UnknownHubModel | GatedModel) and not of_one_model:
            told = _bad(endpoint, "it refused the search")
        raise told from errors[0]
    if not asking.is_alive():
        # what nobody expected; its trace is in the log
        raise _bad(endpoint, "its answer cannot be used")
    call.hang_up()
    raise _unavailable(endpoint, f"it did not answer within {PATIENCE_S:g} s")


_installing = threading.Lock()
_installed = False


def _use_our_client() -> None:
    """Once in a process: the library has one client for all."""
    global _installed
    with _installing:
        if not _installed:
            set_client_factory(Client)
            _installed = True


def _told(endpoint: str, settings: Settings, error: Exception) -> HostlerError:
    if isinstance(error, HubNonsense):
        return _bad(endpoint, str(error))
    if isinstance(error, HubTrouble):
        return _unavailable(endpoint, str(error))
    if isinstance(error, GatedRepoError | DisabledRepoError):
        return GatedModel()
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return UnknownHubModel()
    if isinstance(error, HfHubHTTPError):
        return _of_status(endpoint, settings, error.response.status_code)
    return _bad(endpoint, f"its answer is not what the hub's API says ({type(error).__name__})")


def _of_status(endpoint: str, settings: Settings, status: int) -> HostlerError:
    if status == 401 and settings.hf_token:
        return _unavailable(endpoint, "it does not know HOSTLER_HF_TOKEN")
    if status in (401, 404):
        # without a token the hub does not tell a private model from none
        return UnknownHubModel()
    if status == 403:
        return GatedModel()
    return _bad(endpoint, f"it answered {status}")


def _unavailable(endpoint: str, why: str) -> HubUnavailable:
    return HubUnavailable(
        f"The hub at {endpoint} cannot be asked: {why}. Try again; what is here is served all the same.",
        retry_after_s=_RETRY_AFTER_S,
    )


def _bad(endpoint: str, why: str) -> HubBadAnswer:
    return HubBadAnswer(f"The hub at {endpoint} answered badly: {why}. See that HF_ENDPOINT names a hub.")
