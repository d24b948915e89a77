"""Bodies made to be read differently by the gateway and by an engine: each ends at the right model's replica, or not
at all.
"""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator

import pytest

from app.domain.routing import ModelFacts
from tests.integration.gateway.doors import Answer, Door, open_door, replica
from tests.support.sayers import Sayer

#: The limited key may ask this one alone...
OURS = "ours"
#: ...and never these.
THEIRS = "theirs"
SLASHED = "org/model.1-\u00fc"
PATH = "/v1/chat/completions"
LONG = json.dumps([{"role": "user", "content": 'a "quoted" word, {"model": "theirs"}, \\ and \u00e4 ' * 2500}])


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Sayer]]:
    found = {name: Sayer(name).start() for name in (OURS, THEIRS, SLASHED)}
    yield found
    for one in found.values():
        one.stop()


@pytest.fixture(scope="module")
def door(engines: dict[str, Sayer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    replicas = [replica(engines[name], name, number) for number, name in enumerate(engines, 1)]
    with open_door(
        tmp_path_factory.mktemp("door"),
        replicas,
        models=[ModelFacts(OURS, ("nick",)), ModelFacts(THEIRS), ModelFacts("asleep")],
        keys={"limited": {"role": "infer", "models": [OURS]}},
    ) as found:
        yield found


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


#: name -> (body, what a key for all models gets, what the limited key gets); a text is who must serve it.
BODIES: dict[str, tuple[bytes, str | int, str | int]] = {
    name: (body if isinstance(body, bytes) else body.encode(), every, limited)
    for name, (body, every, limited) in {
        "plain": ('{"model": "ours", "messages": []}', OURS, OURS),
        "plain, not allowed": ('{"model": "theirs", "messages": []}', THEIRS, 403),
        "tight": ('{"model":"ours"}', OURS, OURS),
        "wide": ('{ \n\t"model"\r\n : \t"ours" }', OURS, OURS),
        "white space first": ('\r\n\t {"model": "ours"}', OURS, OURS),
        "alias": ('{"model": "nick"}', OURS, OURS),
        "unicode": (json.dumps({"model": SLASHED}, ensure_ascii=False), SLASHED, 403),
        "unicode escaped": (json.dumps({"model": SLASHED}), SLASHED, 403),
        "escaped slash": ('{"model": "org\\/model.1-\u00fc"}', SLASHED, 403),
        "after the messages": (f'{{"messages": {LONG}, "model": "ours"}}', OURS, OURS),
        "after the messages, not allowed": (f'{{"messages": {LONG}, "model": "theirs"}}', THEIRS, 403),
        "before long messages": (f'{{"model": "ours", "messages": {LONG}}}', OURS, OURS),
        "one at each end": (f'{{"model": "ours", "messages": {LONG}, "model": "theirs"}}', 400, 400),
        "nested before": ('{"a": {"model": "theirs"}, "model": "ours"}', OURS, OURS),
        "nested after": ('{"model": "ours", "a": {"model": "theirs"}}', OURS, OURS),
        "nested in a list": ('{"a": [{"model": "theirs"}], "model": "ours"}', OURS, OURS),
        "nested alone": ('{"a": {"model": "theirs"}}', 400, 400),
        "nested, in a text": ('{"a": "{\\"model\\": \\"theirs\\"}", "model": "ours"}', OURS, OURS),
        "text that ends like a key": ('{"a": "\\"model", "model": "ours"}', OURS, OURS),
        "doubled": ('{"model": "ours", "model": "theirs"}', 400, 400),
        "doubled, the other way": ('{"model": "theirs", "model": "ours"}', 400, 400),
        "doubled, the same": ('{"model": "ours", "model": "ours"}', 400, 400),
        "doubled by an escaped key": ('{"model": "ours", "\\u006dodel": "theirs"}', 400, 400),
        "doubled by an escaped key first": ('{"mode\\u006C": "theirs", "model": "ours"}', 400, 400),
        "key escaped whole": (f'{{"{_escaped("model")}": "ours"}}', OURS, OURS),
        "key escaped whole, not allowed": (f'{{"{_escaped("model")}": "theirs"}}', THEIRS, 403),
        "value escaped whole": (f'{{"model": "{_escaped("ours")}"}}', OURS, OURS),
        "value escaped whole, not allowed": (f'{{"model": "{_escaped("theirs")}"}}', THEIRS, 403),
        "other case beside": ('{"model": "ours", "Model": "theirs"}', 400, 400),
        "other case beside, escaped": ('{"model": "ours", "\\u004dodel": "theirs"}', 400, 400),
        "other case alone": ('{"MODEL": "ours"}', 400, 400),
        "other case of the value": ('{"model": "OURS"}', 404, 403),
        "value with a space": ('{"model": "ours "}', 404, 403),
        "value with a NUL": ('{"model": "ours\\u0000"}', 404, 403),
        "unknown": ('{"model": "nobody"}', 404, 403),
        "known, not ready": ('{"model": "asleep"}', 503, 403),
        "number": ('{"model": 5}', 400, 400),
        "null": ('{"model": null}', 400, 400),
        "list": ('{"model": ["ours"]}', 400, 400),
        "object": ('{"model": {"model": "ours"}}', 400, 400),
        "empty": ('{"model": ""}', 400, 400),
        "missing": ('{"messages": []}', 400, 400),
        "lone surrogate": ('{"model": "\\ud800"}', 400, 400),
        "no object": ('["model", "ours"]', 400, 400),
        "only a text": ('"model"', 400, 400),
        "nothing": ("", 400, 400),
        "not whole": ('{"model": "ours", "messages": [', OURS, OURS),
        "a second document": ('{"model": "ours"}{"model": "theirs"}', 400, 400),
        "a second document, spaced": ('{"model": "ours"}\n{"model": "theirs"}', 400, 400),
        "a second document without a model": ('{"model": "ours"} {}', OURS, OURS),
        "comment": ('{/*"model": "theirs",*/ "model": "ours"}', 400, 400),
        "single quotes": ("{'model': 'ours'}", 400, 400),
        "raw NUL, then another": (b'{"model": "ours", "a": "\0", "model": "theirs"}', 400, 400),
        "NUL after the first": (b'{"model": "ours"}\0{"model": "theirs"}', 400, 400),
        "UTF-16": (_utf16('{"model": "ours"}'), 400, 400),
        "UTF-16 with a mark": (b"\xff\xfe" + _utf16('{"model": "ours"}'), 400, 400),
        "UTF-16, big end first": ('{"model": "theirs"}'.encode("utf-16-be"), 400, 400),
        "UTF-32": ('{"model": "theirs"}'.encode("utf-32"), 400, 400),
        "byte order mark": (b'\xef\xbb\xbf{"model": "ours"}', 400, 400),
        "not UTF-8": (b'{"model": "ours", "a": "\xff\xfe"}', OURS, OURS),
        "not UTF-8 in the name": (b'{"model": "ours\xff"}', 400, 400),
        "gzip without saying so": (gzip.compress(b'{"model": "theirs"}'), 400, 400),
        "too deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + ', "model": "ours"}', 400, 400),
        "a name of 10 KB": (json.dumps({"model": "x" * 10_000}), 400, 400),
    }.items()
}

#: No JSON, and yet of one model only: the fast lane lets that model's engine say so, the slow lane says it itself.
LEFT_TO_THE_ENGINE = {"not UTF-8", "a second document without a model", "not whole"}


def _judge(answer: Answer, wanted: str | int) -> None:
    if isinstance(wanted, int):
        assert (answer.status, answer.served_by) == (wanted, None), answer.body[:500]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["source"] == "gateway"
        assert answer.json["request_id"]
        assert answer.json["errors"] is not None
    else:
        assert (answer.status, answer.served_by) == (200, wanted), answer.body[:500]


@pytest.mark.parametrize("key", ["all", "limited"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("name", list(BODIES))
def test_ends_at_its_model_or_nowhere(
    door: Door, engines: dict[str, Sayer], name: str, chunked: bool, key: str
) -> None:
    body, every, limited = BODIES[name]
    before = {one: len(engine.asked) for one, engine in engines.items()}
    answer = _in_chunks(door, body, key) if chunked else door.ask("POST", PATH, body, key=key)
    wanted = every if key == "all" else limited
    if chunked and name in LEFT_TO_THE_ENGINE:
        wanted = 400
    _judge(answer, wanted)
    after = {one: len(engine.asked) for one, engine in engines.items()}
    assert {one for one in after if after[one] > before[one]} == ({wanted} if isinstance(wanted, str) else set())
    if isinstance(wanted, str):
        assert engines[wanted].asked[-1].body == body


def _in_chunks(door: Door, body: bytes, key: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    pieces = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    headers = {"X-API-Key": door.keys[key], "Content-Type": "application/json"}
    connection.request("POST", PATH, iter(pieces), headers, encode_chunked=True)
    try:
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
