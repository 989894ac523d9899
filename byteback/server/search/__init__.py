"""Finds what patterns match in a client's snapshots, and keeps the index of names.

session/ and transfer/ call it for listings and restores, prune/ for the index. Patterns
and trees are hostile.
"""
