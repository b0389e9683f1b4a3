"""Alembic's entry: runs migrations on the connection that ControlStore hands over."""

from alembic import context

import gptwright.core.serving_tables  # noqa: F401  its tables belong to the same metadata
from gptwright.core.control import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
