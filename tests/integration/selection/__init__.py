"""What a backup sends, on real trees with real mounts."""
