"""Mail by way of sendmail(8), which every mail transport of this machine brings."""

from __future__ import annotations

from pathlib import Path

from byteback.errors import NotSetUpError
from byteback.system import process

SENDMAIL = Path("/usr/sbin/sendmail")
TIMEOUT_S = 60.0


def is_available() -> bool:
    """True if a mail transport is installed."""
    return SENDMAIL.exists()


def send(to: str, subject: str, text: str) -> None:
    """Hand a message to the mail transport, which sends it when it can.

    ``to`` is one or more addresses, separated by commas. Raises NotSetUpError where
    there is no transport, ToolError if it refuses.
    """
    if not is_available():
        raise NotSetUpError(
            f"mail to {to} cannot be sent: there is no {SENDMAIL}",
            hint="install a mail transport, such as msmtp-mta, nullmailer or postfix",
        )
    # Late: a backup that sends no mail must not take memory for it.
    from email.message import EmailMessage
    from email.policy import SMTP

    message = EmailMessage()
    message["To"] = to
    message["Subject"] = subject
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers, please
    message.set_content(text)
    # The recipients are read from the header, never taken as options (-t). A line of a
    # single dot does not end the message (-i).
    process.run(
        [SENDMAIL, "-t", "-i"],
        stdin=message.as_bytes(policy=SMTP.clone(linesep="\n")),
        timeout_s=TIMEOUT_S,
    )
