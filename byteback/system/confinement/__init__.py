"""Confines processes: bubblewrap, Landlock, seccomp, and what a sandbox may see.

Transfers, searches and restores call it. The confined program is hostile.
"""
