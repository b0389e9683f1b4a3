"""Erasures and the blocks that keep erased texts from coming back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "erasure",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("basis", sa.String, nullable=False),
        sa.Column("selector", sa.String, nullable=False),
        sa.Column("documents", sa.Integer, nullable=False),
        sa.Column("certificate", sa.JSON, nullable=False),
        sa.Column("previous", sa.String),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.create_table(
        "erasure_block",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("erasure_id", sa.Integer, sa.ForeignKey("erasure.id"), nullable=False, index=True),
        sa.Column("mac", sa.String, nullable=False, unique=True),
        sa.Column("sketch", sa.String),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("erasure_block")
    op.drop_table("erasure")
