"""Runs the migrations on the connection that `ControlDatabase` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from cluster.stores.control_tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
