"""Serves one request of a client: reads it, dispatches it, answers and logs it.

byteback-receive calls `dispatch`. Everything that comes over the line is hostile.
"""
