"""Alembic's entry: migrate over the connection the store hands in."""

from alembic import context

from portico_gateway.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
