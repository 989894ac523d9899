"""Settings that unit and integration tests share."""

from __future__ import annotations

import hypothesis

# A shared machine may stall for longer than hypothesis allows an example, and its
# database of failures would be written into a checkout that may belong to others.
hypothesis.settings.register_profile("byteback", deadline=None, database=None)
hypothesis.settings.load_profile("byteback")
