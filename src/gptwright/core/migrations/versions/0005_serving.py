"""Limits of keys, users behind a key; files, batches, stored responses and conversations of the server."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrent", "tokens_per_day")


def _time(name: str, nullable: bool = True, index: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, index=index)


def _owner() -> sa.Column[object]:
    return sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id"), index=True)


def upgrade() -> None:
    """Add the columns and create the tables."""
    for name in _LIMITS:
        op.add_column("api_key", sa.Column(name, sa.BigInteger))
    op.add_column("usage", sa.Column("end_user", sa.String))
    op.create_table(
        "stored_file",
        sa.Column("id", sa.String, primary_key=True),
        _owner(),
        _time("created_at", nullable=False),
        _time("expires_at", index=True),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "stored_chunk",
        sa.Column("file_id", sa.String, sa.ForeignKey("stored_file.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.String, primary_key=True),
        _owner(),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("input_file_id", sa.String, nullable=False),
        sa.Column("output_file_id", sa.String),
        sa.Column("error_file_id", sa.String),
        sa.Column("status", sa.String, nullable=False, index=True),
        sa.Column("completion_window", sa.String, nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at", nullable=False),
        *(_time(f"{name}_at") for name in ("in_progress", "finalizing", "completed", "failed", "expired")),
        *(_time(f"{name}_at") for name in ("cancelling", "cancelled")),
        sa.Column("output_kept_s", sa.Integer),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("errors", sa.JSON, nullable=False),
    )
    op.create_table(
        "batch_line",
        sa.Column("batch_id", sa.String, sa.ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("custom_id", sa.String, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("request_id", sa.String),
        sa.Column("answer", sa.JSON, nullable=False),
    )
    op.create_table(
        "response_thread",
        sa.Column("id", sa.String, primary_key=True),
        _owner(),
        _time("created_at", nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
    )
    op.create_table(
        "thread_item",
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, index=True),
        sa.Column(
            "thread_id", sa.String, sa.ForeignKey("response_thread.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("item", sa.JSON, nullable=False),
    )
    op.create_table(
        "stored_response",
        sa.Column("id", sa.String, primary_key=True),
        _owner(),
        _time("created_at", nullable=False),
        _time("expires_at", index=True),
        sa.Column("previous_id", sa.String),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("items", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("stored_response", "thread_item", "response_thread", "batch_line", "batch", "stored_chunk"):
        op.drop_table(table)
    op.drop_table("stored_file")
    op.drop_column("usage", "end_user")
    for name in _LIMITS:
        op.drop_column("api_key", name)
