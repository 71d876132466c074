"""Statements as SQLAlchemy takes them, each parsed once in the life of a process: that would be an eighth of a small commit."""

from __future__ import annotations

from functools import lru_cache

import sqlalchemy as sa

STATEMENTS_MAX = 1024
"""Several times as many as there are; those made of what somebody asked for must not fill the memory."""


@lru_cache(STATEMENTS_MAX)
def text(statement: str) -> sa.TextClause:
    """Return `statement`, whose values are named `:name`; shared by all threads, and never changed."""
    return sa.text(statement)
