"""The store's discs grow, come, go and are replaced, while backups go on.

byteback-setup-server calls `run`, as root. btrfs does the work and keeps its state;
this package looks first, asks once, watches, and tells how things stand when it is cut
off.
"""
