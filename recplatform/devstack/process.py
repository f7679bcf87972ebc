"""Child processes that never outlive their parent.

Three things hold that: each child leads a process group which is stopped as a whole,
the kernel signals a child whose parent died (``PR_SET_PDEATHSIG``, Linux), and
whoever starts children stops them in a ``finally``.
"""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recplatform.devstack.errors import ServiceFailed

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections, so
# that nobody can take a port between the moment it was found and its use.
FREE_PORTS = range(20_000, 32_000)
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Child:
    """A started server: its process, its log and how it is asked to stop."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def failure(self, what: str = "") -> ServiceFailed:
        """Return the error that shows how it ended and the end of its log."""
        return ServiceFailed(self.name, what or self._end(), self.log, self.tail())

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log, indented."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])

    def _end(self) -> str:
        code = self.process.poll()
        if code is None:
            return "does not answer"
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"stopped by itself with exit code {code}"


@dataclass(slots=True)
class Children:
    """Starts children and stops all of them, the last one first."""

    log_dir: Path
    started: list[Child] = field(default_factory=list)

    def spawn(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        pass_fds: Sequence[int] = (),
        before_exec: Callable[[], None] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a server in a group of its own, its output in ``<log_dir>/<name>.log``.

        Must run in the main thread: the kernel's signal comes when the thread ends
        that made the child. ``before_exec`` runs in the child and may change its user.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log = self.log_dir / f"{name}.log"
        parent = os.getpid()

        def prepare() -> None:
            if before_exec is not None:
                before_exec()
            # After a change of user, which would clear it.
            _die_with(parent, stop_signal)

        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=prepare,
            )
        child = Child(name, process, log, stop_signal)
        self.started.append(child)
        return child

    def stopped(self) -> Child | None:
        """Return a child that ended although nobody asked it to, or None."""
        return next((child for child in self.started if not child.running), None)

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask all to stop, wait, then kill what is left of their groups."""
        for child in reversed(self.started):
            if child.running:
                child.process.send_signal(child.stop_signal)
        deadline = time.monotonic() + grace_s
        for child in reversed(self.started):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            finally:
                _kill_group(child.process.pid)
                child.process.wait()
        self.started.clear()


def wait_until(child: Child, ready: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Poll until ``ready``; raise ServiceFailed when the child ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while child.running:
        if ready():
            return
        if time.monotonic() > deadline:
            raise child.failure(f"was not ready within {timeout_s:.0f} s")
        time.sleep(0.02)
    raise child.failure()


def free_port() -> int:
    """Return a port on which nothing listens."""
    for port in random.sample(FREE_PORTS, 200):
        if is_free(port):
            return port
    raise OSError(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listening_socket() -> socket.socket:
    """Return a bound, listening socket to hand to a server of ours: no race for its port."""
    listener = socket.create_server((HOST, 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


def _die_with(parent: int, how: signal.Signals) -> None:
    if _libc is None:
        return
    _libc.prctl(PR_SET_PDEATHSIG, int(how))
    if os.getppid() != parent:
        os._exit(1)


def _kill_group(pgid: int) -> None:
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
