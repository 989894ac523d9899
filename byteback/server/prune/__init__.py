"""Keeps room in the store: deletes snapshots, drops transfers, repairs after crashes.

byteback-prune calls it. The ledger and the names in the store are not trusted alone.
"""
