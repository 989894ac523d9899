"""byteback-receive: what sshd runs for every client's key.

It must start in little more than bare Python, so that click comes in only for a person
who asks for --help.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from byteback import log
from byteback.cli import _boundary
from byteback.errors import (
    BytebackError,
    InterruptedBySignalError,
    NotSetUpError,
    RefusedError,
    as_expected_error,
)
from byteback.server.session import dispatch
from byteback.server.store import layout
from byteback.system import signals

PROGRAM = "byteback-receive"
LOCAL = "--local"  # root on this machine asks: no ssh, and no key


def main() -> NoReturn:
    """Serve SSH_ORIGINAL_COMMAND for the host that authorized_keys names."""
    _boundary.ensure_utf8()
    signals.install()
    argv = sys.argv[1:]
    if _is_by_root(argv):
        layout.become_store_user()
        sys.exit(_serve(argv[1], _words(argv[4:]), by_root=True))
    if len(argv) == 2 and argv[0] == "--replica":
        sys.exit(_serve(argv[1], dispatch.original_command(), of_replica=True))
    host = _host(argv)
    if host is None:
        _help()
    sys.exit(_serve(host, dispatch.original_command()))


def _serve_replica(name: str, command: bytes) -> int:
    from byteback.server.replicate import serve

    return serve.serve(name, command)


def _is_by_root(argv: list[str]) -> bool:
    """True for ``--host NAME --local MACHINE WORD...``, as rsync calls its ssh.

    No line of authorized_keys has these words, and a client cannot add to its line.
    """
    return len(argv) > 4 and argv[0] == "--host" and argv[2] == LOCAL


def _words(words: list[str]) -> bytes:
    """The request that byteback-restore --host, or its rsync, gives as arguments.

    They are what ssh would have sent.
    """
    return os.fsencode(" ".join(words))


def _host(argv: list[str]) -> str | None:
    """The host that the forced command names, or None for a person's command line.

    Lines that the old tool wrote in authorized_keys name it in the environment, which
    sshd's PermitUserEnvironment fills from that line alone.
    """
    if len(argv) == 2 and argv[0] == "--host":
        return argv[1]
    if not argv and "SSH_CONNECTION" in os.environ:
        return os.environ.get("BYTEBACK_HOST", "")
    return None


def _serve(
    name: str, command: bytes, *, by_root: bool = False, of_replica: bool = False
) -> int:
    try:
        if of_replica:
            return _serve_replica(name, command)
        return dispatch.serve(name, command, by_root=by_root)
    except BytebackError as error:
        is_refusal = isinstance(error, RefusedError)
        # By its status, too, the client knows what may be tried again.
        public = error if by_root else dispatch.for_client(error)
        log.audit_end(
            "REJECT" if is_refusal else "FAIL",
            refusal=is_refusal,
            asked=command[:200].decode("utf-8", "surrogateescape"),
            reason=error.message,
            details=" | ".join(error.details) or None,
            exit=public.exit_status,
        )
        if not isinstance(error, InterruptedBySignalError):
            _tell(public)
        return public.exit_status
    except BrokenPipeError:
        log.audit_end("GONE", reason="the client stopped listening")
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 # a bug: the log gets it, not the client
        trouble = as_expected_error(error)
        return _report_trouble(error, trouble) if trouble else _report_bug(error)
    finally:
        _discard_output()


def _report_trouble(error: Exception, trouble: BytebackError) -> int:
    """The machine's trouble may have passed by the time the client comes again.

    What is not installed will not have come by then.
    """
    public = trouble
    if not isinstance(trouble, NotSetUpError):
        public = dispatch.trouble_for_client(error)
    log.audit_end("FAIL", reason=trouble.message, exit=public.exit_status)
    _tell(public)
    return public.exit_status


def _tell(error: BytebackError) -> None:
    """Say it in the form that a client understands whose rsync passes it on."""
    _boundary.print_error(PROGRAM, error)
    _boundary.print_fields(error)


def _report_bug(error: Exception) -> int:
    import traceback

    trace = traceback.format_exc().replace("\n", " | ")
    log.audit_end("BUG", reason=trace[-1500:])
    sys.stderr.write(f"{PROGRAM}: error: the server failed ({type(error).__name__})\n")
    return _boundary.BUG_STATUS


def _discard_output() -> None:
    """Keep Python from writing, while it exits, what the client did not take."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


def _help() -> NoReturn:
    try:
        import click
    except ModuleNotFoundError as error:
        _boundary.end_without_module(PROGRAM, error)

    from byteback.cli._options import CONTEXT, exit_status_help, version_option

    epilog = exit_status_help(0, 1, 9, 10, 11, 13, 14, 70, 75)

    @click.command(PROGRAM, context_settings=CONTEXT, epilog=epilog)
    @click.option("--host", metavar="NAME", help="The client that the key belongs to.")
    @click.option("--local", metavar="MACHINE", help="Serve root's own request.")
    @click.option("--replica", metavar="NAME", help="The second server that it is of.")
    @version_option
    def command(**_words: str | None) -> None:
        """Serve one request of a backup client.

        sshd runs this as the forced command of each client's key in authorized_keys.
        What the client asks for is in SSH_ORIGINAL_COMMAND.
        """
        raise click.UsageError("this program is for sshd: see byteback-receive(1)")

    _boundary.run(command)
