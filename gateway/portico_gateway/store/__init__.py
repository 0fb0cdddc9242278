"""What Portico remembers: tables, migrations and the engine (SQLite by default, PostgreSQL alike)."""
