"""Logging for modules of the forced command, which goes without ``logging`` (D3)."""

from __future__ import annotations

import sys


class Diary:
    """What logging.Logger is, of which the import costs more than most sessions.

    Where no other module has imported logging, no handler is there that would take a
    message: those below a warning are dropped then.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_read(self) -> bool:
        """True if messages below a warning can reach a reader."""
        return "logging" in sys.modules

    def debug(self, text: str, *values: object) -> None:
        """Log detail."""
        if self.is_read:
            import logging

            logging.getLogger(self._name).debug(text, *values)

    def info(self, text: str, *values: object) -> None:
        """Log a milestone."""
        if self.is_read:
            import logging

            logging.getLogger(self._name).info(text, *values)

    def warning(self, text: str, *values: object) -> None:
        """Log what is worth a look."""
        import logging

        logging.getLogger(self._name).warning(text, *values)

    def error(self, text: str, *values: object) -> None:
        """Log a failure."""
        import logging

        logging.getLogger(self._name).error(text, *values)
