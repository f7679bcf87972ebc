"""Child processes that never outlive their parent.

Three things hold that: each child leads a process group which is stopped as a whole,
the kernel signals a child whose parent died (``PR_SET_PDEATHSIG``, Linux), and
whoever starts children stops them in a ``finally``.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from recplatform.devstack.errors import ServiceFailed

PR_SET_PDEATHSIG = 1
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_asked: list[signal.Signals] = []
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Interrupted(Exception):
    """Somebody asked this process to stop."""

    def __init__(self, how: signal.Signals) -> None:
        super().__init__(how.name)
        self.exit_code = 128 + how


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
        """Start a program in a group of its own, its output in ``<log_dir>/<name>.log``.

        Must run in the main thread: the kernel's signal comes when the thread ends
        that made the child. ``env`` is the whole environment, ours by default;
        ``before_exec`` runs in the child and may change its user.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log = self.log_dir / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=_preparation(stop_signal, before_exec),
            )
        child = Child(name, process, log, stop_signal)
        self.started.append(child)
        return child

    @contextmanager
    def foreground(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a command that writes to our own output; end it on the way out."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_preparation(signal.SIGTERM),
        )
        try:
            yield process
        finally:
            _kill_group(process.pid)
            process.wait()

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
    """Poll until ``ready``; raise ServiceFailed when the child ends or time is up, or Interrupted."""
    deadline = time.monotonic() + timeout_s
    while child.running:
        raise_if_interrupted()
        if ready():
            return
        if time.monotonic() > deadline:
            raise child.failure(f"was not ready within {timeout_s:.0f} s")
        time.sleep(0.02)
    raise child.failure()


@contextmanager
def interruptible() -> Iterator[None]:
    """Note Ctrl-C, SIGTERM and SIGHUP from here on, for ``raise_if_interrupted``.

    An exception out of the handler itself could come up anywhere: in a ``finally`` that
    is stopping children, or in a callback of the interpreter, where it would be lost.
    """

    def note(number: int, _: FrameType | None) -> None:
        _asked.append(signal.Signals(number))

    former = {wanted: signal.signal(wanted, note) for wanted in INTERRUPTS}
    try:
        yield
    finally:
        for wanted, handler in former.items():
            signal.signal(wanted, handler)
        _asked.clear()


def raise_if_interrupted() -> None:
    """Raise Interrupted when a signal was noted. Whatever waits calls it while it waits."""
    if _asked:
        raise Interrupted(_asked[0])


def _preparation(
    stop_signal: signal.Signals, before_exec: Callable[[], None] | None = None
) -> Callable[[], None]:
    parent = os.getpid()

    def prepare() -> None:
        if before_exec is not None:
            before_exec()
        # After a change of user, which would clear it.
        die_with(parent, stop_signal)

    return prepare


def die_with(parent: int, how: signal.Signals) -> None:
    """Let the kernel signal this process when its parent is gone. Called between fork and exec."""
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
