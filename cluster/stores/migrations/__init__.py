"""Alembic migrations of the control store; `cluster.stores.control_database` runs them at opening."""
