"""One module for each outside program or kernel interface; failures are typed errors.

client/ and server/ call it. It trusts its callers, not the output of the programs.
"""
