"""Reading what a web token says, whatever it is."""

from __future__ import annotations

import base64
import json

import pytest

from vds.model.webtoken import claims_of


def token_of(claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


@pytest.mark.parametrize("claims", [{}, {"upn": "ada@example.com"}, {"name": "Ada Ö", "n": 1}])
def test_the_claims_of_a_token(claims: dict[str, object]) -> None:
    assert claims_of(token_of(claims)) == claims


@pytest.mark.parametrize(
    "text", ["", "no token", "a.b", "a.####.c", "a.bm8.c", "a.ÿ.c", token_of(["a", "list"]), token_of("text")]
)
def test_what_is_none_says_nothing(text: str) -> None:
    assert claims_of(text) == {}
