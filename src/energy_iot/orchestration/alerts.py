"""One message when a run fails, to a webhook, by mail, or to both; nothing until an address is set."""

import logging
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx

from energy_iot.errors import UsageError
from energy_iot.settings import Settings

TIMEOUT_SECONDS: Final = 15
MOST_LINES: Final = 12  # of an error: a table of failed expectations belongs into the report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """What a person needs to know at six in the morning.

    Attributes:
        title: What failed.
        problem: Why.
        fix: What to do next.
        link: Where to read on.
    """

    title: str
    problem: str
    fix: str
    link: str | None = None

    @property
    def text(self) -> str:
        """The message."""
        lines = self.problem.splitlines()
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], f"... and {len(lines) - MOST_LINES} lines more"]
        return "\n".join([self.title, *lines, f"what to do: {self.fix}", *([self.link] if self.link else [])])


def send(settings: Settings, alert: Alert) -> list[str]:
    """Send the alert to each address that is set; returns those that took it.

    A receiver that cannot be reached is logged: an alert must not hide the failure that it tells of.
    """
    reached = []
    for name, is_set, deliver in (
        ("webhook", settings.alert_webhook_url is not None, _post),
        ("mail", settings.alert_email_to is not None, _mail),
    ):
        if not is_set:
            continue
        try:
            deliver(settings, alert)
        except (OSError, httpx.HTTPError, smtplib.SMTPException, UsageError) as error:
            # the address holds a secret: of an error only its kind and what the receiver said
            log.error("the alert did not reach the %s: %s", name, _reason(error))
        else:
            reached.append(name)
    return reached


def _post(settings: Settings, alert: Alert) -> None:
    assert settings.alert_webhook_url is not None
    answer = httpx.post(
        settings.alert_webhook_url.get_secret_value(), json={"text": alert.text}, timeout=TIMEOUT_SECONDS
    )
    answer.raise_for_status()


def _mail(settings: Settings, alert: Alert) -> None:
    """Mail it; smtp:// goes over to TLS where the server offers it, smtps:// begins with it.

    Raises:
        UsageError: The server's address is not set, or no such address.
    """
    assert settings.alert_email_to is not None
    address = urlsplit(settings.alert_smtp_url.get_secret_value() if settings.alert_smtp_url else "")
    if address.scheme not in {"smtp", "smtps"} or not address.hostname:
        raise UsageError("alert_smtp_url is no smtp:// or smtps:// address", fix="smtp://user:password@host:587")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = alert.title, settings.alert_email_from, settings.alert_email_to
    message.set_content(alert.text)
    context = ssl.create_default_context()
    server: smtplib.SMTP
    if address.scheme == "smtps":
        server = smtplib.SMTP_SSL(address.hostname, address.port or 465, timeout=TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(address.hostname, address.port or 587, timeout=TIMEOUT_SECONDS)
    with server:
        if address.scheme == "smtp":
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=context)
            elif address.password:
                raise UsageError("the mail server offers no TLS to send a password over", fix="use smtps://")
        if address.username:
            server.login(unquote(address.username), unquote(address.password or ""))
        server.send_message(message)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    if isinstance(error, httpx.HTTPError):
        return type(error).__name__
    return str(error)
