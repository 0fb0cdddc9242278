"""Identifiers: how each is spelt, made and recognised.

session id   8 hex digits, a studio's name for ever          "3fa1b2c4"
run id       "r" + 16 hex digits, one start-to-stop           "r9f0c1d2e3a4b5c6"
lineage      "l" + 16 hex digits, a studio and its forks      "l00112233445566ff"
"""

import re
import secrets

SESSION_ID = re.compile(r"[0-9a-f]{8}")
RUN_ID = re.compile(r"r[0-9a-f]{16}")
LINEAGE = re.compile(r"l[0-9a-f]{16}")


def new_session_id() -> str:
    """A fresh studio id; uniqueness is the store's to check (32 bits)."""
    return secrets.token_hex(4)


def new_run_id() -> str:
    return "r" + secrets.token_hex(8)


def new_lineage() -> str:
    return "l" + secrets.token_hex(8)


def is_session_id(text: str) -> bool:
    return SESSION_ID.fullmatch(text) is not None


def is_run_id(text: str) -> bool:
    return RUN_ID.fullmatch(text) is not None


def is_lineage(text: str) -> bool:
    return LINEAGE.fullmatch(text) is not None
