"""OpenSSH: command lines, configuration, known_hosts, and logins by password.

The client calls it. The server at the other end is not trusted.
"""
