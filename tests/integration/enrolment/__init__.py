"""Machines become clients of a server, over a real sshd."""
