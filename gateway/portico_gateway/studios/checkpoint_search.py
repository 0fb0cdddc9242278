"""What people type to find a checkpoint.

before-upgrade status:sealed author:ana after:2026-01-31 before:2026-02-15
"""

import datetime
import shlex
from typing import Any

import sqlalchemy as sa

from portico_gateway.errors import BadRequest
from portico_gateway.store.tables import checkpoints, users

MAX_SEARCH = 256
STATUSES = ("pending", "saved", "sealed", "failed")
SPELT = {"empty": "pending", "interim": "saved", "finalized": "sealed", "invalid": "failed"}
"""What clients of the API call them."""


def conditions(search: str) -> list[sa.ColumnElement[bool]]:
    """Each part narrows. Raises BadRequest with what is known instead."""
    if len(search) > MAX_SEARCH:
        raise BadRequest(f"a search has at most {MAX_SEARCH} characters")
    try:
        parts = shlex.split(search)
    except ValueError:  # an open quotation mark: taken as it is
        parts = search.split()
    return [_condition(part) for part in parts]


def _condition(part: str) -> sa.ColumnElement[bool]:
    key, _, value = part.partition(":")
    match key.lower():
        case "status" if value:
            status = SPELT.get(value.lower(), value.lower())
            if status not in STATUSES:
                raise BadRequest(f"unknown status '{value}'; known: {', '.join(STATUSES)}")
            return checkpoints.c.status == status
        case "author" if value:
            people = sa.select(users.c.id).where(sa.func.lower(users.c.user_name) == value.lower())
            return checkpoints.c.author_id.in_(people)
        case "before" if value:
            return checkpoints.c.created < _day(value)
        case "after" if value:
            return checkpoints.c.created >= _day(value)
        case _:
            return _contains(checkpoints.c.name, part)


def _day(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(f"'{text}' is no date: write it like 2026-01-31") from None


def _contains(column: sa.ColumnElement[Any], word: str) -> sa.ColumnElement[bool]:
    return sa.func.lower(column).contains(word.lower(), autoescape=True)
