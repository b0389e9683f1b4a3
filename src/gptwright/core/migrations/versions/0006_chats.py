"""Whose conversations they are, how they are set up and which branch is shown; for whom a judgement of an answer was given."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEYED = ("conversation", "feedback")


def upgrade() -> None:
    """Add the columns. Nothing has written conversations before; what there is belongs to nobody in particular."""
    for table in _KEYED:
        with op.batch_alter_table(table) as batch:
            batch.add_column(
                sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id", name=f"fk_{table}_key"), nullable=True)
            )
            batch.create_index(f"ix_{table}_key_id", ["key_id"])
    for table in ("conversation", "message"):
        op.add_column(table, sa.Column("info", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("feedback", sa.Column("end_user", sa.String, nullable=True))


def downgrade() -> None:
    """Drop them again."""
    op.drop_column("feedback", "end_user")
    for table in ("message", "conversation"):
        op.drop_column(table, "info")
    for table in _KEYED:
        with op.batch_alter_table(table) as batch:
            batch.drop_index(f"ix_{table}_key_id")
            batch.drop_constraint(f"fk_{table}_key", type_="foreignkey")
            batch.drop_column("key_id")
