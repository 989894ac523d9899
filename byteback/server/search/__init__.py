"""Finds what patterns match in a client's snapshots, and keeps the index of names.

session/ calls it for listings and restores, prune/ for the index. Patterns and trees
are hostile.
"""
