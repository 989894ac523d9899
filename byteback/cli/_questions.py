"""Asking the person at the terminal, or the program that SSH_ASKPASS names."""

from __future__ import annotations

import getpass
import sys

import click

from byteback.system.ssh import askpass


class TerminalQuestions:
    """The Questions of byteback.client.setup.questions, on standard input and error."""

    def can_confirm(self) -> bool:
        """Only a terminal can say yes: what a pipe says was meant for another."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; Enter alone means no."""
        return self.can_confirm() and click.confirm(question, default=False, err=True)

    def can_ask_secret(self) -> bool:
        """True if there is a terminal, or SSH_ASKPASS."""
        return self.can_confirm() or askpass.is_wanted(on_terminal=False)

    def secret(self, prompt: str) -> str | None:
        """Ask without showing what is typed."""
        on_terminal = self.can_confirm()
        if askpass.is_wanted(on_terminal=on_terminal):
            return askpass.ask(prompt)
        if not on_terminal:
            return None
        try:
            # Not click's prompt: it asks first and turns the echo off afterwards.
            return getpass.getpass(prompt)
        except EOFError:
            return None
