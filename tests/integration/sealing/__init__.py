"""Snapshots that are of root, out of reach of the user of the store."""
