"""The schema of 0.1.0, as SQL beside this file: it is the specification and is read as such."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the driver's own cursor without parameters: only so is a whole script taken at once, and `%` stays itself
    with op.get_bind().connection.cursor() as cursor:
        cursor.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise NotImplementedError("0001 is the first schema; drop the database instead")
