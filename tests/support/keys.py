"""The key of the admin who asks for things in tests, where nobody needs to know its secret."""

from __future__ import annotations

from app.usecases.context import Actor

ADMIN = Actor("000000000000", "admin", "admin")
#: Makes the key: there is no secret with that hash.
INSERT_ADMIN = (
    "INSERT INTO keys (id, name, hash, prefix, role) VALUES ('000000000000', 'k', repeat('A', 64), 'x', 'admin')"
)
