"""Runs as root on the machine that is backed up.

cli/ calls it. It trusts its own server, and only with what that server was given.
"""
