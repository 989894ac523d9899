"""Feeds one reader with whatever leads to new ways through it.

    python3 -m tests.fuzz.fuzz TARGET [-max_total_time=3600] [CORPUS-DIRECTORY]

It needs atheris (``pip install atheris``) and stops at the first input that the reader
answers with anything but what it promises. ``targets.py`` has the readers.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run until told to stop, beginning from the target's examples."""
    import atheris

    with atheris.instrument_imports(include=["byteback"]):
        from tests.fuzz.targets import TARGETS, examples

    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as directory:
        for number, example in enumerate(examples(name)):
            TARGETS[name](example)
            (Path(directory) / str(number)).write_bytes(example)
        # libFuzzer writes what is new to the first directory and reads them all.
        has_corpus = not sys.argv[-1].startswith("-") and len(sys.argv) > 1
        own = [] if has_corpus else [tempfile.mkdtemp(dir=directory)]
        # libFuzzer ends the process it runs in, so that process is another one: this
        # one removes the directory.
        fuzzing = os.fork()
        if fuzzing == 0:
            atheris.Setup([*sys.argv, *own, directory], TARGETS[name])
            atheris.Fuzz()
        _, status = os.waitpid(fuzzing, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
