"""Servers run one at a time, say so, stop when asked, and leave no process behind."""

import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from energy_iot.errors import StorageError
from energy_iot.serving import local_server
from energy_iot.serving.local_server import alone, asked_to_stop, free_port, is_held, running_processes, write_secret
from tests.live_server import wait_for

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


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "home" / ".lock"
    assert not is_held(lock)
    with alone(lock, "Airflow"):
        assert is_held(lock)
        with pytest.raises(StorageError, match=r"Airflow already runs on .*home"), alone(lock, "Airflow"):
            pass
    assert not is_held(lock)
    with alone(lock, "Airflow"):
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
    assert [one for one in ours if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


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
    left = set(psutil.Process().children()) - others
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []
