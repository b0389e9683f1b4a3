"""Labels of documents, to train classifiers from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "label",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("doc_uid", sa.String, nullable=False),
        sa.Column("content_id", sa.String, nullable=False, index=True),
        sa.Column("task", sa.String, nullable=False, index=True),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("who", sa.String),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("label")
