"""Talks to the server: one ssh connection, retries, and the compression of the line.

Backups, restores and set-up call it. It trusts the server's replies no further than
their parsers do.
"""
