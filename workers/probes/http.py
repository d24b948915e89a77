"""Ask one engine over HTTP: once, or until it answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

from workers.probes.wire import NotHttp, ProbeResult, ProbeTarget, no_answer, parse_answer, request_bytes, verdict

_FIRST_WAIT_S = 0.002
_LONGEST_WAIT_S = 0.25
#: One try of ``look``: an engine that accepts but does not answer yet is asked again after that.
_TRY_S = 1.0


def probe_once(target: ProbeTarget, timeout_s: float | None = None) -> ProbeResult:
    """One GET on a connection of its own. Never raises; never takes longer than the timeout.

    Costs about 0.1 ms when nobody listens, so it may be asked often.
    """
    limit_s = target.timeout_s if timeout_s is None else timeout_s
    begun = time.monotonic()
    try:
        return _ask(target, begun, begun + limit_s)
    except TimeoutError:
        return no_answer(_since_ms(begun), f"no answer within {limit_s:g} s")
    except NotHttp:
        return no_answer(_since_ms(begun), "what listens there does not speak HTTP")
    except OSError as error:
        return no_answer(_since_ms(begun), (error.strerror or str(error)).lower())


def look(target: ProbeTarget, is_alive: Callable[[], bool], deadline_s: float) -> ProbeResult | None:
    """Ask until it answers 2xx, for at most ``deadline_s`` from now.

    Returns the good answer; the last bad one when time runs out; None when ``is_alive`` said no. Waits a twentieth of
    the time gone by between tries (2 ms to 250 ms), so that readiness is seen at most 5 % late.
    """
    begun = time.monotonic()
    while True:
        left_s = begun + deadline_s - time.monotonic()
        # a last try at the deadline still costs next to nothing when nobody listens
        result = probe_once(target, min(max(left_s, _FIRST_WAIT_S), _TRY_S, target.timeout_s))
        gone_s = time.monotonic() - begun
        if result.ok:
            return replace(result, latency_ms=gone_s * 1000)
        if not is_alive():
            return None
        if gone_s >= deadline_s:
            return result
        time.sleep(min(max(_FIRST_WAIT_S, gone_s / 20), _LONGEST_WAIT_S, deadline_s - gone_s))


def _ask(target: ProbeTarget, begun: float, deadline: float) -> ProbeResult:
    with socket.create_connection((target.host, target.port), timeout=_left_s(deadline)) as connection:
        connection.sendall(request_bytes(target))
        received = bytearray()
        while True:
            connection.settimeout(_left_s(deadline))
            data = connection.recv(16384)
            if not data:
                return no_answer(_since_ms(begun), "connection closed without an answer")
            received += data
            answer = parse_answer(received)
            if answer is not None:
                return verdict(answer.status, _since_ms(begun))


def _left_s(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _since_ms(begun: float) -> float:
    return (time.monotonic() - begun) * 1000
