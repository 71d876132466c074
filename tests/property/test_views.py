"""A version says the same of its files whether the index is asked or the list that this machine keeps: what is so."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

import vds
from vds.engine.view import LocalView, View, list_children, list_rows
from vds.model.entry import EntryRow
from vds.model.path import ancestors, is_under

SEGMENTS = ["a", "a!", "a0", "b", "b.c", "é", "\U0001f600"]
_numbers = itertools.count(1)

paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map("/".join)


def without_clashes(names: set[str]) -> set[str]:
    """Drop what would need a file of the same version to be a directory."""
    return {name for name in names if not any(above in names for above in ancestors(name))}


def children_of(names: list[str], place: str) -> list[tuple[str, bool]]:
    prefix = f"{place}/" if place else ""
    below = [name for name in names if name.startswith(prefix)]
    found = {(prefix + name[len(prefix) :].partition("/")[0], "/" in name[len(prefix) :]) for name in below}
    return sorted(found, key=lambda child: child[0].encode())


def rows_of(view: View, place: str, after: str, limit: int) -> list[str]:
    return [row.path for row in view.page(place, after, limit)]


@settings(max_examples=60)
@given(st.sets(paths, max_size=25).map(without_clashes), paths | st.just(""), paths | st.just(""), st.integers(1, 5))
def test_both_views_agree_with_a_plain_list(files: set[str], place: str, after: str, limit: int) -> None:
    with vds.connect(f"memory://views-{next(_numbers)}", create=True) as store:
        with store.namespace("n").transaction() as tx:
            for name in files:
                tx.write_text(name, name)
        version = tx.version
        assert version is not None
        names = sorted(files, key=str.encode)
        pinned = version._pinned
        views: list[View] = [pinned.index_view]
        if pinned.number:
            views.append(LocalView(pinned.need_manifest()))
        below = [name for name in names if is_under(name, place)]
        for view in views:
            rows: list[EntryRow] = list(list_rows(view, place))
            assert [row.path for row in rows] == below
            assert rows_of(view, place, after, limit) == [name for name in below if name.encode() > after.encode()][:limit]
            assert view.has(place) == bool(below)
            assert view.measure(place) == (len(below), sum(len(name.encode()) for name in below))
            assert set(view.find([place, after, *names[:3]])) == {place, after, *names[:3]} & files
            assert sorted(view.places(rows)) == sorted({row.digest for row in rows})
            found = [(path, row is None) for path, row in list_children(view, place)]
            assert sorted(found, key=lambda child: child[0].encode()) == children_of(names, place)
