"""Who may do what with a store: the three ways to be let in, beside owning it."""

from __future__ import annotations

from typing import Literal, get_args

Access = Literal["reader", "writer", "collector"]
"""- reader: reads, and changes nothing anywhere;
- writer: makes versions, releases and tags, and deletes no bytes;
- collector: a writer who also expires versions and deletes what nothing needs.

Making a store, and upgrading or rebuilding its index, are for the owner of the index's tables.
"""

ACCESSES: tuple[Access, ...] = get_args(Access)
