"""The capability registry: what a registration says, and what is found."""

from __future__ import annotations

import math
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import QueryFlag, Text
from app.db.models.registrations import END_REASONS, HEALTH, SPEAKS

REGISTERED_ID = r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}"
#: Every process of the API keeps all of them in memory.
MOST_CAPABILITIES, MOST_NAMES, LONGEST_NAME, LONGEST_VALUE = 64, 32, 128, 512


class CapabilityField(ma.fields.Field[dict[str, Any]]):
    """A flat object: words, numbers and booleans by name."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {"description": self.__doc__})
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ma.ValidationError("Not an object of names and values.")
        if len(value) > MOST_NAMES:
            raise ma.ValidationError(f"More than {MOST_NAMES} names.")
        for name, member in value.items():
            if not 1 <= len(name) <= LONGEST_NAME:
                raise ma.ValidationError(f"A name has 1 to {LONGEST_NAME} characters.")
            if not isinstance(member, str | int | float | bool):
                raise ma.ValidationError(f"{name}: neither a word, nor a number, nor a boolean.")
            if isinstance(member, str) and len(member) > LONGEST_VALUE:
                raise ma.ValidationError(f"{name}: longer than {LONGEST_VALUE} characters.")
            if isinstance(member, float) and not math.isfinite(member):
                raise ma.ValidationError(f"{name}: not a finite number.")
        return value


class RegisterBody(Body):
    """A server, where it is and what it can do."""

    replica_id = Text(1, 128, REGISTERED_ID, required=True)
    endpoint = Text(3, 300, required=True, metadata={"description": "HOST:PORT. HOSTLER_REGISTER_ALLOW has the hosts."})
    capabilities = ma.fields.List(CapabilityField(), required=True, validate=validate.Length(max=MOST_CAPABILITIES))


class Found(Answer):
    """Where to send."""

    endpoint = ma.fields.String(required=True, metadata={"description": "HOST:PORT, as it was registered."})
    replica_id = ma.fields.String(required=True)


class Registered(Found):
    """A server that can be found."""

    capabilities = ma.fields.List(ma.fields.Dict(), required=True)


class RegistryQuery(PageQuery):
    """How much of the registry, and from where."""


class RegistryPage(Page):
    """Servers by id."""

    replicas = ma.fields.List(ma.fields.Nested(Registered), required=True)


class RegistrationQuery(PageQuery):
    """Filters of the list of registrations."""

    ended = QueryFlag(load_default=False, metadata={"description": "Also those that ended within the last day."})


class Registration(Registered):
    """A registered server with who holds it and how it is."""

    state = ma.fields.String(required=True, metadata={"enum": ["live", "ended"]})
    end_reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*END_REASONS, None]})
    generation = ma.fields.Integer(required=True, metadata={"description": "Grows with each stream."})
    owner = ma.fields.String(required=True, metadata={"description": "The id of the key."})
    owner_name = ma.fields.String(required=True)
    registrar = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "The process of the API that holds the stream."}
    )
    node = ma.fields.String(required=True)
    addresses = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "What the host's name meant when it registered."}
    )
    address = ma.fields.String(required=True, metadata={"description": "The one of them that is asked."})
    health = ma.fields.String(required=True, metadata={"enum": list(HEALTH)})
    speaks = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*SPEAKS, None]})
    message = ma.fields.String(required=True, metadata={"description": "What the last probe that changed it saw."})
    registered_at = ma.fields.DateTime(required=True)
    connected_at = ma.fields.DateTime(required=True)
    checked_at = ma.fields.DateTime(required=True, allow_none=True)
    answered_at = ma.fields.DateTime(required=True, allow_none=True)
    ended_at = ma.fields.DateTime(required=True, allow_none=True)


class RegistrationPage(Page):
    """Registrations by id."""

    registrations = ma.fields.List(ma.fields.Nested(Registration), required=True)
