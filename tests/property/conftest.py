"""Property tests give the same answer each time: no random seed, no deadline that a busy machine could miss, no database."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("vds", derandomize=True, deadline=None, database=None)
settings.load_profile("vds")
