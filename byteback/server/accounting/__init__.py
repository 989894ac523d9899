"""Records what each backup took, and judges whether a client is suddenly larger.

transfer/, snapshots/, session/ and prune/ write to it, status/ reads it. A lost ledger
stops nothing.
"""
