"""One thin module for each program: parse, call one function, print."""

import sys

# Before any module with newer syntax is read.
if sys.version_info < (3, 11):  # noqa: UP036 # a launcher takes what /usr/bin/python3 is
    sys.stderr.write(
        "byteback: error: Python 3.11 or later is needed, and "
        f"{sys.executable} is {sys.version.split()[0]}\n"
        "  hint: Debian 12, Ubuntu 24.04 and later bring one\n"
    )
    sys.exit(10)
