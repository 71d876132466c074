from __future__ import annotations

import pytest

from vds.errors import InvalidInputError
from vds.model.patterns import Patterns, path_filter

PATHS = ["README.md", "a.csv", "data/a.csv", "data/raw/b.csv", "data/raw/b.txt", "data.csv/x", "Data/c.csv", "é.csv"]


@pytest.mark.parametrize(
    ("allow", "ignore", "taken"),
    [
        (None, None, PATHS),
        ("*.csv", None, ["a.csv", "data/a.csv", "data/raw/b.csv", "Data/c.csv", "é.csv"]),
        (["data/*"], None, ["data/a.csv", "data/raw/b.csv", "data/raw/b.txt"]),
        ("data/", None, ["data/a.csv", "data/raw/b.csv", "data/raw/b.txt"]),
        (None, "data/", ["README.md", "a.csv", "data.csv/x", "Data/c.csv", "é.csv"]),
        ("*.csv", ["data/raw/*", "[Dé]*"], ["a.csv", "data/a.csv"]),
        ("?.csv", None, ["a.csv", "é.csv"]),
        ("e\u0301.csv", None, ["é.csv"]),
        ([], None, []),
        (None, [], PATHS),
        ("data", None, []),
    ],
)
def test_meaning(allow: Patterns, ignore: Patterns, taken: list[str]) -> None:
    wanted = path_filter(allow, ignore)
    assert [path for path in PATHS if wanted.takes(path)] == taken
    assert wanted.takes_all == (allow is None and ignore is None)


@pytest.mark.parametrize("patterns", [[""], "", [None], [1]])
def test_what_is_no_pattern(patterns: Patterns) -> None:
    for arguments in ((patterns, None), (None, patterns)):
        with pytest.raises(InvalidInputError, match="not a pattern"):
            path_filter(*arguments)


def test_directories_that_hold_nothing_to_take() -> None:
    wanted = path_filter(None, ["cache/", "*/tmp/**", "*.log", "x/*.y", "[ab]/*"])
    pruned = ["cache", "data/tmp", "a", "b"]
    entered = ["data", "cache2", "x", "tmp", "data/a.log", "c"]
    assert [name for name in pruned + entered if wanted.prunes(name)] == pruned
    assert not path_filter("*.csv").prunes("x")
