"""Frozen values and pure functions: no input or output, and no clock."""
