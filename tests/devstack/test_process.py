"""Children: how they end, with their parent and without."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from recplatform.devstack.errors import ServiceFailed
from recplatform.devstack.process import Children, wait_until

pytestmark = pytest.mark.unit

# Prints the ids of a child and of the child's own child, then waits.
PARENT = """
import signal, sys, time
from pathlib import Path
from recplatform.devstack.process import (
    Children, Interrupted, interruptible, raise_if_interrupted,
)
children = Children(Path(sys.argv[1]))
try:
    with interruptible():
        try:
            child = children.spawn("child", ["sh", "-c", "sleep 300 & echo $!; wait"])
            while not child.log.read_text().strip():
                time.sleep(0.01)
            print(child.process.pid, child.log.read_text(), flush=True)
            while True:
                raise_if_interrupted()
                time.sleep(0.02)
        finally:
            children.stop()
except Interrupted as interrupted:
    sys.exit(interrupted.exit_code)
"""


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    started = Children(tmp_path)
    yield started
    started.stop(grace_s=0)


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: (
        not any(
            psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            for pid in pids
        )
    )


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_parent_that_is_asked_to_stop_leaves_no_process(tmp_path: Path, how: signal.Signals):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(how)
    assert parent.wait(10) == 128 + how
    assert eventually(gone(pids))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")
def test_a_killed_parent_takes_its_child_with_it(tmp_path: Path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child, grandchild = (int(pid) for pid in parent.stdout.readline().split())
    parent.kill()
    parent.wait(10)
    assert eventually(gone([child]))
    # Of no concern here: every server ends its own children.
    os.kill(grandchild, signal.SIGKILL)


def test_a_child_that_ignores_the_request_is_killed(children: Children):
    child = children.spawn("stubborn", ["sh", "-c", "trap '' TERM; echo ready; sleep 300"])
    assert eventually(lambda: "ready" in child.log.read_text())
    children.stop(grace_s=0.2)
    assert child.process.returncode == -signal.SIGKILL


def test_the_children_of_a_child_that_stopped_are_killed(children: Children):
    child = children.spawn("shell", ["sh", "-c", "sleep 300 & echo $!"])
    child.process.wait(10)
    orphan = int(child.log.read_text())
    assert psutil.pid_exists(orphan)
    children.stop()
    assert eventually(gone([orphan]))


def test_a_child_that_ends_by_itself_is_noticed_with_its_last_lines(children: Children):
    steady = children.spawn("steady", ["sleep", "300"])
    assert children.stopped() is None
    broken = children.spawn("broken", ["sh", "-c", "seq 100; echo no more room; exit 3"])
    assert eventually(lambda: children.stopped() is broken)
    message = str(broken.failure())
    assert message.startswith("broken stopped by itself with exit code 3")
    assert "no more room" in message
    assert "\n  50\n" not in message
    assert steady.running


def test_a_child_that_crashes_is_named_with_its_signal(children: Children):
    child = children.spawn("crashed", ["sh", "-c", "kill -SEGV $$"])
    with pytest.raises(ServiceFailed, match=r"crashed was ended by signal 11 \(SIGSEGV\)"):
        wait_until(child, lambda: False)


def test_a_child_that_never_becomes_ready_is_said_to(children: Children):
    child = children.spawn("slow", ["sleep", "300"])
    with pytest.raises(ServiceFailed, match="slow was not ready within 0 s"):
        wait_until(child, lambda: False, timeout_s=0.1)


def test_a_command_in_the_foreground_ends_with_its_block(children: Children, tmp_path: Path):
    with children.foreground(["sleep", "300"], env={}, cwd=tmp_path) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL
