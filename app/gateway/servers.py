"""How a member is written as a server: the same words in the file and in ``add server``. Pure."""

from __future__ import annotations

from app.domain.endpoints import Endpoint
from app.domain.routing import Member, MemberKind

#: All are asked alike. What a foreign hand sets is put right.
WEIGHT = 100


def address(member: Member, relay: str) -> str:
    """Where HAProxy connects to. A registered server is reached through the relay, which takes our engine key off."""
    if member.kind is MemberKind.REGISTERED:
        return f"unix@{relay}"
    return str(Endpoint(member.ip, member.port))


def arguments(member: Member, relay: str, extra: str = "") -> str:
    """What follows the name of a server. ``extra`` are the words of its checks, the same for every server."""
    words = [address(member, relay), f"weight {WEIGHT}"]
    if member.max_concurrency:
        words.append(f"maxconn {member.max_concurrency}")
    if extra:
        words.append(extra)
    return " ".join(words)
