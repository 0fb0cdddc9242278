"""All tables. Times are seconds since the epoch (UTC) as floats; ids that the API shows are 64-bit integers.

One owner per table: `auth` writes the people's tables, `studios` the studios' and runs', `studios.checkpoints` the
catalogue. Others read through the owners.

`sqlite_autoincrement`: an id is given once. SQLite else gives that of the newest deleted row again, and a cookie of an
ended sign-in, which names it by id, would be good for the next one.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# --- people ---------------------------------------------------------------------------------------------------------

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("user_name", sa.String(64), nullable=False, unique=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),  # casefolded
    sa.Column("display_name", sa.String(128), nullable=False, server_default=""),
    sa.Column("password_hash", sa.String(256)),  # argon2id; NULL = cannot sign in by password
    sa.Column("is_admin", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

sign_in_links = sa.Table(  # one-use links: the first administrator's, invitations, password resets
    "sign_in_links",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),  # SHA-256 of the secret
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("purpose", sa.String(32), nullable=False),  # 'bootstrap', 'invitation', 'reset'
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("used", sa.Float),
)

sign_ins = sa.Table(  # browser sessions
    "sign_ins",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("last_used", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("peer", sa.String(64), nullable=False, server_default=""),
    sa.Column("agent", sa.String(256), nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

tokens = sa.Table(  # personal access tokens
    "tokens",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("last_used", sa.Float),
    sa.Column("expires", sa.Float),
    sa.UniqueConstraint("user_id", "name"),
    sqlite_autoincrement=True,
)

handover_codes = sa.Table(
    "handover_codes",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("sign_in_id", BigId, sa.ForeignKey("sign_ins.id", ondelete="CASCADE"), nullable=False),
    sa.Column("session_id", sa.String(8), nullable=False),
    sa.Column("nonce_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("location", sa.String(8192), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)

organisations = sa.Table(
    "organisations",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(80), nullable=False, unique=True),
    sa.Column("created", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("org_id", BigId, sa.ForeignKey("organisations.id"), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("full_name", sa.String(160), nullable=False, server_default=""),
    sa.Column("description", sa.String(1024), nullable=False, server_default=""),
    sa.Column("created", sa.Float, nullable=False),
    # policy
    sa.Column("lifespan_hours", sa.Integer),  # NULL = free to choose; 0 = until stopped
    sa.Column("private_by_default", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("launch_may_start", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.UniqueConstraint("org_id", "name"),
    sqlite_autoincrement=True,
)

members = sa.Table(
    "members",
    metadata,
    sa.Column("workspace_id", BigId, sa.ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.Integer, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)

# --- studios --------------------------------------------------------------------------------------------------------

studios = sa.Table(
    "studios",
    metadata,
    sa.Column("session_id", sa.String(8), primary_key=True),
    sa.Column("workspace_id", BigId, sa.ForeignKey("workspaces.id"), nullable=False, index=True),
    sa.Column("creator_id", BigId, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("description", sa.String(2048), nullable=False, server_default=""),
    sa.Column("template", sa.String(512), nullable=False),  # template's repository
    sa.Column("compute_env_id", sa.String(64), nullable=False),
    sa.Column("configuration", sa.JSON, nullable=False),  # studios.values.Configuration
    sa.Column("is_private", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("allowed_user_ids", sa.JSON, nullable=False),
    sa.Column("lineage", sa.String(17), nullable=False, index=True),
    sa.Column("parent_checkpoint_id", BigId),
    sa.Column("start_checkpoint_id", BigId),  # a fork's first start begins here
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("status_message", sa.String(4096), nullable=False, server_default=""),
    sa.Column("status_at", sa.Float, nullable=False),
    sa.Column("stop_reason", sa.String(32)),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("run_id", sa.String(17)),  # the current or latest run
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("last_started", sa.Float),
    sa.UniqueConstraint("workspace_id", "name"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(17), primary_key=True),
    sa.Column("session_id", sa.String(8), sa.ForeignKey("studios.session_id", ondelete="CASCADE"), index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("started_by", BigId),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("running_since", sa.Float),
    sa.Column("ended", sa.Float),
    sa.Column("outcome", sa.String(16)),  # 'stopped', 'errored'
    sa.Column("outcome_message", sa.String(4096), nullable=False, server_default=""),
    sa.Column("lifespan_ends", sa.Float),
    sa.Column("lifespan_hours", sa.Integer, nullable=False, server_default="0"),
    sa.Column("configuration", sa.JSON, nullable=False),
    sa.Column("run_token_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("public_key", sa.LargeBinary(32)),  # the first that came with the run token
    sa.Column("tool_port", sa.Integer, nullable=False, server_default="0"),
    sa.Column("placement", sa.JSON),  # what the compute environment needs to find it again
    sa.Column("restore_checkpoint_id", BigId),
    sa.Column("salvage", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("checkpoint_id", BigId),  # the run's own row in the catalogue
    sa.Column("launched", sa.Boolean, nullable=False, server_default=sa.false()),  # its volume holds something to keep
    sa.Column("final_saved", sa.Boolean, nullable=False, server_default=sa.false()),  # its last checkpoint is durable
)

progress = sa.Table(
    "progress",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(17), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("detail", sa.String(1024), nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("session_id", sa.String(8), sa.ForeignKey("studios.session_id", ondelete="CASCADE"), index=True),
    sa.Column("run_id", sa.String(17)),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("author_id", BigId),
    sa.Column("status", sa.String(16), nullable=False),  # 'pending', 'saved', 'sealed', 'failed'
    sa.Column("reason", sa.String(16), nullable=False, server_default=""),
    sa.Column("lineage", sa.String(17), nullable=False),
    sa.Column("head", sa.String(64)),  # the newest durable head of this row
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("content_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("uploaded_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("entries", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("lower", sa.String(128), nullable=False, server_default=""),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("saved", sa.Float),
    sa.UniqueConstraint("session_id", "name"),
    sqlite_autoincrement=True,
)

checkpoint_heads = sa.Table(  # every durable head of a row, newest wins; earlier points stay reachable
    "checkpoint_heads",
    metadata,
    sa.Column("checkpoint_id", BigId, sa.ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("head", sa.String(64), primary_key=True),
    sa.Column("head_size", sa.BigInteger, nullable=False),
    sa.Column("packs", sa.JSON, nullable=False),  # [[hash, size], …]
    sa.Column("saved", sa.Float, nullable=False),
)

events = sa.Table(  # who did what, append-only
    "events",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("workspace_id", BigId),
    sa.Column("session_id", sa.String(8), index=True),
    sa.Column("user_id", BigId),
    sa.Column("peer", sa.String(64), nullable=False, server_default=""),
    sa.Column("kind", sa.String(48), nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("workspace_id", BigId, sa.ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("value", sa.String(255)),
    sa.Column("created", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

studio_labels = sa.Table(
    "studio_labels",
    metadata,
    sa.Column("session_id", sa.String(8), sa.ForeignKey("studios.session_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("label_id", BigId, sa.ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True),
)

keys = sa.Table(  # signing keys of this instance; generation makes yesterday's backup harmless
    "keys",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)
