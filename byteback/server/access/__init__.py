"""Decides which key belongs to which client: authorized_keys and enrolment.

cli/, setup/, fleet/ and prune/ call it. Keys and host names come from machines that are
not trusted.
"""
