"""byteback-setup-server on a real machine: user, file systems, mounts, schedule."""
