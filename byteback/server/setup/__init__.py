"""Makes this machine a backup server, and can be run again at any time.

byteback-setup-server calls `run`. The administrator is trusted; the contents of an
adopted store are not.
"""
