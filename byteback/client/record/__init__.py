"""The record of what a client has sent, by which a backup sends changes alone (D40).

client.backup calls it, as root on the machine that is backed up. It trusts
the server's tree token. It trusts nothing that users of this machine name.
"""
