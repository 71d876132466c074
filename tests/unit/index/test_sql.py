"""Statements are parsed once, and shared."""

from __future__ import annotations

from sqlalchemy import bindparam

from vds.index.sql import STATEMENTS_MAX, text


def test_the_same_words_are_the_same_statement() -> None:
    assert text("SELECT :a") is text("SELECT :a")
    assert text("SELECT :a") is not text("SELECT :b")


def test_what_is_made_of_one_leaves_it_as_it_was() -> None:
    shared = text("SELECT 1 WHERE 1 IN :ids")
    own = shared.bindparams(bindparam("ids", expanding=True))
    assert own is not shared
    assert own._bindparams["ids"].expanding
    assert not text("SELECT 1 WHERE 1 IN :ids")._bindparams["ids"].expanding


def test_there_are_never_more_than_so_many() -> None:
    for number in range(STATEMENTS_MAX + 1):
        text(f"SELECT {number}")
    assert text.cache_info().currsize == STATEMENTS_MAX
