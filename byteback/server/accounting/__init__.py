"""Records what each backup took, and judges whether a client is suddenly larger.

transfer/ and snapshots/ write to it, prune/ reads it. A lost ledger stops nothing.
"""
