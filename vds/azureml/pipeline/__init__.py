"""Pipelines of steps, run on this machine."""
