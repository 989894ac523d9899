"""Runs the server's rsync for a backup or a restore: confined, measured and limited.

session/ calls it. rsync's words, its log and the tree are hostile.
"""
