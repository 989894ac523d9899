"""Makes one backup: which files are sent, the hooks, the transfer and its outcome.

byteback-backup calls `run`. The configuration in /etc/byteback is trusted; the file
systems of other users are not.
"""
