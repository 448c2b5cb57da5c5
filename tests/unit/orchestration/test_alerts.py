"""Alerts reach real receivers on this machine, say what to do, and never hide what they tell of."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from energy_iot.orchestration.alerts import MOST_LINES, Alert, send
from energy_iot.settings import Settings
from tests.receivers import mail_server, webhook

ALERT = Alert(
    title="energy_pipeline_daily: ge_validate_staging failed in scheduled__2026-11-21",
    problem="1 critical expectation of the data is not met",
    fix="correct the file, then clear the task",
    link="http://127.0.0.1:18080/dags/energy_pipeline_daily",
)


def test_without_an_address_nothing_is_sent(tmp_path: Path) -> None:
    assert send(Settings(home=tmp_path), ALERT) == []


def test_both_receivers_get_one_message_each(tmp_path: Path) -> None:
    with webhook() as (url, posted), mail_server() as (smtp, mailed):
        settings = Settings(
            home=tmp_path,
            alert_webhook_url=SecretStr(url),
            alert_email_to="crew@utility.example, lead@utility.example",
            alert_smtp_url=SecretStr(smtp),
        )
        assert send(settings, ALERT) == ["webhook", "mail"]
    assert posted == [{"text": ALERT.text}]
    (mail,) = mailed
    assert f"Subject: {ALERT.title}" in mail.replace("\r\n ", " ").replace("\r\n", "\n")
    for said in (ALERT.problem, ALERT.fix, "lead@utility.example"):
        assert said in mail


def test_a_receiver_that_refuses_is_logged_without_its_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook(status=403) as (url, _), mail_server() as (smtp, mailed):
        settings = Settings(
            home=tmp_path,
            alert_webhook_url=SecretStr(url),
            alert_email_to="crew@utility.example",
            alert_smtp_url=SecretStr(smtp),
        )
        assert send(settings, ALERT) == ["mail"]
    assert len(mailed) == 1
    assert "it answered 403" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("address", [None, "mail.example:25", "smtp://"])
def test_a_mail_server_that_is_none_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str | None
) -> None:
    settings = Settings(
        home=tmp_path, alert_email_to="crew@utility.example", alert_smtp_url=SecretStr(address) if address else None
    )
    assert send(settings, ALERT) == []
    assert "alert_smtp_url" in caplog.text


def test_no_password_goes_out_in_the_clear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mail_server() as (smtp, mailed):
        settings = Settings(
            home=tmp_path,
            alert_email_to="crew@utility.example",
            alert_smtp_url=SecretStr(smtp.replace("//", "//robot:Tr0ub4dor@")),
        )
        assert send(settings, ALERT) == []
    assert not mailed
    assert "no TLS" in caplog.text
    assert "Tr0ub4dor" not in caplog.text


def test_a_long_problem_is_cut() -> None:
    alert = Alert("failed", "\n".join(f"row {number}" for number in range(100)), "look")
    assert f"row {MOST_LINES - 1}\n... and {100 - MOST_LINES} lines more" in alert.text
    assert f"row {MOST_LINES}\n" not in alert.text
