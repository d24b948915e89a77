"""Which model a body asks for, read as an engine would read it. Pure.

Engines differ in what they make of a doubtful body: of two ``model`` keys some take the first and some the last, and
some take ``Model`` for it. So a doubtful body is refused, and nobody has to guess.
"""

from __future__ import annotations

import json
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from app.errors import Malformed, WrongMediaType

#: Longer is no model's name.
LONGEST_NAME = 200
_FIELD = "model"
_FORM = "multipart/form-data"
#: Parts of one form; beyond it nobody means it well.
_PARTS = 1000


def model_in(body: bytes, content_type: str) -> str | None:
    """The model that ``body`` asks for, None when it names none.

    Raises Malformed for what is neither JSON in UTF-8 nor a form, or names a model twice, and WrongMediaType.
    """
    media, options = parse_options_header(content_type)
    if media.lower() == _FORM:
        names = _of_form(body, options.get("boundary", ""))
    elif media.lower() == "application/x-www-form-urlencoded":
        raise WrongMediaType("Send the body as JSON, or as multipart/form-data where the route takes files.")
    else:
        names = _of_json(body)
    if not names:
        return None
    if len(names) > 1:
        raise Malformed("The body names `model` twice. Send it once.")
    key, value = names[0]
    if key != _FIELD:
        raise Malformed(f"The body names {key!r}. Write it `model`: some engines would take it for that.")
    if not isinstance(value, str) or not value:
        raise Malformed("`model` must be a text that is not empty.")
    if len(value) > LONGEST_NAME:
        raise Malformed(f"`model` is longer than {LONGEST_NAME} characters: no model has such a name.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Malformed("`model` holds half of a surrogate pair. Send whole characters.") from None
    return value


def may_name_one(body: bytes, content_type: str) -> str | None:
    """Like ``model_in`` for a body that need not be one of these: what is no JSON object names no model.

    Raises Malformed for an object or form that is doubtful.
    """
    media, _ = parse_options_header(content_type)
    if media.lower() != _FORM:
        # what an engine could take for JSON in another encoding is not let by unread
        start = body.lstrip(b" \t\r\n\0\xff\xfe\xef\xbb\xbf")[:1]
        if start != b"{":
            return None
    return model_in(body, content_type)


def _of_json(body: bytes) -> list[tuple[str, Any]]:
    try:
        # as pairs, so that what stands there twice is seen; numbers are not worked out
        found = json.loads(body.decode("utf-8"), object_pairs_hook=tuple, parse_int=_Number, parse_float=_Number)
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8. Send JSON in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is no JSON: {_told(error)}.") from None
    if not isinstance(found, tuple):
        raise Malformed("The body is no JSON object. Send one with `model`.")
    return [(key, value) for key, value in found if key.lower() == _FIELD]


class _Number:
    """A number, which is not worth working out."""

    def __init__(self, _written: str) -> None:
        pass


def _told(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        # its own words quote nothing of the body
        return f"{error.msg} at character {error.pos}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it cannot be read"


def _of_form(body: bytes, boundary: str) -> list[tuple[str, Any]]:
    if not boundary:
        raise Malformed("The form has no boundary. Let your HTTP library write the Content-Type.")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_parts=_PARTS)
    found: list[tuple[str, Any]] = []
    wanted = False
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        while True:
            event = decoder.next_event()
            if isinstance(event, (Field, File)):
                wanted = (event.name or "").lower() == _FIELD
                if wanted:
                    found.append((event.name, b"" if isinstance(event, Field) and _is_plain(event.headers) else None))
            elif isinstance(event, Data):
                if wanted and found[-1][1] is not None:
                    found[-1] = (found[-1][0], found[-1][1] + event.data)
            elif isinstance(event, (Epilogue, NeedData)):
                break
    except (ValueError, UnicodeDecodeError) as error:
        raise Malformed("The form cannot be read. Let your HTTP library write it.") from error
    if not isinstance(event, Epilogue):
        raise Malformed("The form has no end.")
    return [(key, _text(value)) for key, value in found]


def _is_plain(headers: Headers) -> bool:
    return "Content-Transfer-Encoding" not in headers


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None
