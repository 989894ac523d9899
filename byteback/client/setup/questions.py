"""The questions that set-up may ask the person who runs it, as an interface."""

from __future__ import annotations

from typing import Protocol


class Questions(Protocol):
    """Implemented by the command line with a terminal, and by tests with answers."""

    def can_confirm(self) -> bool:
        """True if a person can answer yes or no."""
        ...

    def confirm(self, question: str) -> bool:
        """A yes or no; no is what silence means."""
        ...

    def can_ask_secret(self) -> bool:
        """True if a password can be asked for: on a terminal, or by SSH_ASKPASS."""
        ...

    def secret(self, prompt: str) -> str | None:
        """A password, not shown while it is typed; None if there is no way to ask."""
        ...
