"""Where replicas run, as SQL beside this file."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the driver's own cursor without parameters: only so is a whole script taken at once, and `%` stays itself
    with op.get_bind().connection.cursor() as cursor:
        cursor.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise NotImplementedError("go back by restoring a backup; 0.3.0 runs on this schema as it is")
