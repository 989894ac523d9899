"""Knows the store's layout, its settings, and the state of each client's `current`.

Every other package of server/ calls it. Names and files in a client's directory are
hostile.
"""
