"""Copies of all backups on a second server (D55).

On the first server byteback-receive calls serve.py for the key of a second one, and
byteback-clients calls keys.py; the holder of that key is hostile. On the second server
byteback-replicate calls all the others; what the first server sends is hostile.
"""
