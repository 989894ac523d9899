"""The selection of a backup, on real trees with real mounts."""
