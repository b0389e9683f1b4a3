"""Decisions of people about the licences of texts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "license_review",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.String, nullable=False, index=True),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("license_id", sa.String, nullable=False),
        sa.Column("attribution", sa.String),
        sa.Column("note", sa.String),
        sa.Column("who", sa.String),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("license_review")
