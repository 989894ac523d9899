"""Runs as root on the machine that is backed up.

cli/ calls it. It trusts its server with the files that it sends there, and with nothing
else.
"""

import sys

# hashlib and hmac would load OpenSSL, which takes 3.4 MB in every backup. Without it
# they use Python's own digests, of which a backup needs few.
sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type] # what import takes
