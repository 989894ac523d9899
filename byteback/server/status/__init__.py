"""Reports how each client's backup is, and how the store itself is.

byteback-status calls it. It reads the store and the ledger, asks no client, and writes
nothing to the store. A ledger that is damaged is set aside, as by every other program.
"""
