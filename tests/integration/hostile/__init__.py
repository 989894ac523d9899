"""Attacks on a server by whoever holds a client's key, and root on that client."""
