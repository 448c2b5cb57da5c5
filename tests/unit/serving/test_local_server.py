"""Servers run one at a time, say so, stop when asked, and leave no process behind."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving import local_server
from energy_iot.serving.local_server import (
    ADDRESS_FILE,
    alone,
    announced,
    asked_to_stop,
    free_port,
    read_announced,
    running_processes,
    wait_until_ready,
    write_secret,
)
from tests.waiting import wait_for

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_and_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with asked_to_stop() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        assert asked.wait(5)
    assert signal.getsignal(number) is before


def test_one_at_a_time_tells_where_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def read() -> dict[str, Any]:
        return read_announced(home, "Airflow", start="make airflow")

    with pytest.raises(UsageError, match="no Airflow runs"):
        read()
    with alone(home, "Airflow"):
        with pytest.raises(UsageError, match="no Airflow runs"):
            read()
        with announced(home, {"port": 8080}):
            assert read() == {"port": 8080}
            assert (home / ADDRESS_FILE).stat().st_mode & 0o777 == 0o600
        with pytest.raises(StorageError, match=r"Airflow already runs on .*home"), alone(home, "Airflow"):
            pass
        write_secret(home / ADDRESS_FILE, '{"port": 8080}')
    with pytest.raises(UsageError, match="no Airflow runs"):  # one that was killed leaves its address
        read()
    with alone(home, "Airflow"):
        pass


def test_a_taken_port_is_refused_and_nought_is_any() -> None:
    with socket.socket() as listener:
        listener.bind((local_server.HOST, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(StorageError, match=f"port {taken} is taken") as told:
            free_port(taken)
        assert "--port" in str(told.value.fix)
    assert free_port(0) > 0


def test_a_secret_is_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "passwords.json"
    for text in ("{}", "other"):
        write_secret(file, text)
        assert file.read_text() == text
        assert file.stat().st_mode & 0o777 == 0o600


def test_no_process_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "POLITE_SECONDS", 0.3)
    commands = {
        "quiet": [sys.executable, "-c", "import time; time.sleep(600)"],
        "stubborn": [sys.executable, "-c", STUBBORN],
    }
    others = set(psutil.Process().children(recursive=True))
    with running_processes(commands, os.environ, tmp_path) as processes:
        child = psutil.Process(int(wait_for(processes.log_file("stubborn").read_text, "child")))
        processes.refuse_ended()
        ours = set(psutil.Process().children(recursive=True)) - others
        assert child in ours
    # nobody waits for what its parent left behind: a zombie has ended too
    wait_for(lambda: not any(is_alive(one) for one in ours), "end of all of them")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_one_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    commands = {"api-server": [sys.executable, "-c", "print('no database'); raise SystemExit(3)"]}

    def refused() -> str | None:
        try:
            processes.refuse_ended()
        except StorageError as error:
            return str(error)
        return None

    with running_processes(commands, os.environ, tmp_path) as processes:
        said = wait_for(refused, "refusal")
        assert "api-server ended by itself" in said
        assert str(tmp_path / "api-server.log") in said
    assert (tmp_path / "api-server.log").read_text() == "no database\n"


def test_a_program_that_is_not_there_leaves_the_others_stopped(tmp_path: Path) -> None:
    commands = {"quiet": [sys.executable, "-c", "import time; time.sleep(600)"], "missing": [str(tmp_path / "nothing")]}
    others = set(psutil.Process().children())
    with pytest.raises(FileNotFoundError), running_processes(commands, os.environ, tmp_path):
        pass
    assert not any(is_alive(one) for one in set(psutil.Process().children()) - others)


def test_waiting_for_a_server_ends_when_it_answers_is_stopped_ends_or_takes_too_long(tmp_path: Path) -> None:
    waits = [sys.executable, "-c", "import time; time.sleep(600)"]
    answers = iter([False, True])
    with asked_to_stop() as asked, running_processes({"one": waits}, os.environ, tmp_path) as processes:
        assert wait_until_ready("One", lambda: next(answers), processes, asked)
        with pytest.raises(StorageError, match="One is not ready after 0 s") as told:
            wait_until_ready("One", lambda: False, processes, asked, seconds=0)
        assert str(tmp_path) in str(told.value.fix)
        with (
            running_processes({"other": ["true"]}, os.environ, tmp_path) as ended,
            pytest.raises(StorageError, match="other ended by itself"),
        ):
            wait_until_ready("Other", lambda: False, ended, asked)
        asked.set()
        assert not wait_until_ready("One", lambda: True, processes, asked)
