"""Finds files in the backups, restores them, and compares them with this machine.

byteback-restore calls it. The server's listings are checked against what was asked for.
"""
