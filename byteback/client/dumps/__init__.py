"""Dumps databases into files that a backup takes along.

The hooks for PostgreSQL, MariaDB and SQLite call it. Names of databases are hostile
input: their users choose them.
"""
