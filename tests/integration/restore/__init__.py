"""byteback-restore through a real sshd, confined, by real rsyncs."""
