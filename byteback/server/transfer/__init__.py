"""Runs the server's rsync for a backup or a restore: confined, measured and limited.

session/ calls it, and prune/ to drop what a transfer left. rsync's words, its log and
the tree are hostile.
"""
