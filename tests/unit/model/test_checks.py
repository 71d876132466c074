"""Checks of pieces: every changed byte is found, and its piece named; sizes at each limit and one past it."""

from __future__ import annotations

import os

import pytest

from vds.model.checks import (
    ALIGNED_BYTES_MAX,
    CHECKED_BYTES_MAX,
    CHECKS_AIMED_AT,
    LEAF_BYTES,
    ODD_BLOCK_PIECE_BYTES,
    PIECE_BYTES_MAX,
    Checks,
    checks_of,
    find_damage,
    fold,
    has_checks,
    is_whole,
    leaf_checks,
    piece_bytes,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (1, LEAF_BYTES),
        (CHECKS_AIMED_AT * LEAF_BYTES, LEAF_BYTES),
        (CHECKS_AIMED_AT * LEAF_BYTES + 1, 2 * LEAF_BYTES),
        (CHECKS_AIMED_AT * PIECE_BYTES_MAX + 1, PIECE_BYTES_MAX),
        (ALIGNED_BYTES_MAX, PIECE_BYTES_MAX),
        (ALIGNED_BYTES_MAX + 1, ODD_BLOCK_PIECE_BYTES),
    ],
)
def test_pieces_grow_with_the_object(size_bytes: int, expected: int) -> None:
    assert piece_bytes(size_bytes) == expected


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(0, False), (LEAF_BYTES, False), (LEAF_BYTES + 1, True), (CHECKED_BYTES_MAX, True), (CHECKED_BYTES_MAX + 1, False)],
)
def test_which_objects_have_checks(size_bytes: int, expected: bool) -> None:
    assert has_checks(size_bytes) is expected


def test_what_is_whole_is_not_damaged() -> None:
    body = os.urandom(5 * LEAF_BYTES + 7)
    checks = checks_of(body)
    assert checks is not None
    assert is_whole(checks, len(body))
    assert find_damage(checks, 0, body) is None
    assert find_damage(checks, 2 * LEAF_BYTES, body[2 * LEAF_BYTES : 4 * LEAF_BYTES]) is None
    assert find_damage(checks, 5 * LEAF_BYTES, body[5 * LEAF_BYTES :]) is None


@pytest.mark.parametrize("piece", [LEAF_BYTES, 2 * LEAF_BYTES, 4 * LEAF_BYTES])
@pytest.mark.parametrize("place", [0, LEAF_BYTES - 1, LEAF_BYTES, 4 * LEAF_BYTES, 5 * LEAF_BYTES + 6])
def test_one_changed_bit_is_found_and_its_piece_named(piece: int, place: int) -> None:
    body = bytearray(os.urandom(5 * LEAF_BYTES + 7))
    checks = Checks(piece, fold(leaf_checks(body), piece))
    body[place] ^= 1
    assert find_damage(checks, 0, bytes(body)) == place // piece * piece
    begin = place // piece * piece
    assert find_damage(checks, begin, bytes(body[begin : begin + piece])) == 0


def test_checks_of_blocks_come_to_those_of_the_whole() -> None:
    body = os.urandom(3 * MIB + 1)
    for piece in (LEAF_BYTES, 4 * LEAF_BYTES):
        blocks = [body[start : start + MIB] for start in range(0, len(body), MIB)]
        assert b"".join(fold(leaf_checks(block), piece) for block in blocks) == fold(leaf_checks(body), piece)


def test_a_table_of_another_length_is_not_believed() -> None:
    checks = checks_of(bytes(3 * LEAF_BYTES))
    assert checks is not None
    assert is_whole(checks, 3 * LEAF_BYTES)
    assert not is_whole(checks, 3 * LEAF_BYTES + 1)
    assert not is_whole(checks, 2 * LEAF_BYTES)
    assert not is_whole(Checks(1, checks.raw), 3)
