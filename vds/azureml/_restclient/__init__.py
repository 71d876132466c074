"""Attributes that scripts assign to, to lift limits that vds does not have."""
