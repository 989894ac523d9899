"""Takes and seals snapshots, and tells which trees are one subvolume's history.

session/, transfer/, search/ and prune/ call it. Directories of clients are hostile;
btrfs is trusted.
"""
