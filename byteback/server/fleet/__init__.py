"""Clients come, change and go: what an administrator does to one as a whole.

byteback-clients calls it, as root, and byteback-prune finishes what a crash cut off.
The store belongs to an unprivileged user, so root never deletes there only because the
store says so.
"""
