"""The record of what a client has sent, by which a backup sends changes alone (D40).

client.backup calls it, as root on the machine that is backed up. Of the server it
trusts the tree token; of this machine's users nothing: they set names and trees.
"""
