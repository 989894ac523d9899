"""Tests with real sshd, rsync and btrfs, on a throw-away copy of the machine."""
