"""The key of the chat's callers: made once, of role infer, and only one at a time."""

from __future__ import annotations

import pytest

from app.errors import InvalidConfig
from app.settings import Settings
from app.usecases import keys
from app.usecases.context import Actor, Context

FIRST, SECOND = "first-key-of-the-chats-callers", "second-key-of-the-chats-callers"
ADMIN = Actor("x", "x", "admin")


def role_of(ctx: Context, key: str) -> str | None:
    found = keys.authenticate(ctx, key)
    return found.role if found else None


def test_it_is_made_once_and_of_role_infer(ctx: Context, settings: Settings) -> None:
    for _ in range(2):
        keys.ensure_chat_key(settings, FIRST)
    assert role_of(ctx, FIRST) == "infer"
    found, total, _ = keys.list_keys(ctx, {"role": "infer"}, 10, None)
    assert (total, found[0]["name"]) == (1, "chat")


def test_another_takes_its_place_and_leaves_what_others_made(ctx: Context, settings: Settings) -> None:
    maker = keys.list_keys(ctx, {}, 1, None)[0][0]["id"]
    made = keys.create(ctx, Actor(maker, "admin", "admin"), {"name": "theirs", "role": "infer"}, None)
    keys.ensure_chat_key(settings, FIRST)
    keys.ensure_chat_key(settings, SECOND)
    assert (role_of(ctx, FIRST), role_of(ctx, SECOND), role_of(ctx, made.key or "")) == (None, "infer", "infer")
    with pytest.raises(keys.KeyEnded):
        keys.ensure_chat_key(settings, FIRST)
    assert role_of(ctx, SECOND) == "infer", "what was refused cost nothing"


@pytest.mark.parametrize("role", ["admin", "operate", "read", "register"])
def test_a_key_of_another_role_is_never_the_chats(ctx: Context, settings: Settings, role: str) -> None:
    maker = keys.list_keys(ctx, {}, 1, None)[0][0]["id"]
    keys.create(ctx, Actor(maker, "admin", "admin"), {"name": "theirs", "role": role, "key": FIRST}, None)
    with pytest.raises(InvalidConfig, match=f"role {role}"):
        keys.ensure_chat_key(settings, FIRST)
    assert role_of(ctx, FIRST) == role
