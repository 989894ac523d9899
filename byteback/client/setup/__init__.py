"""Sets this machine up as a client: its key, its enrolment and its daily schedule.

byteback-setup-client calls `enrolment`. The server's host key is trusted once the
administrator has confirmed it.
"""
