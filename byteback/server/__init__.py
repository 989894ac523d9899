"""Runs on the backup server, where every input is hostile.

cli/ calls it: the forced command for clients, the other programs for administrators.
"""
