"""``make demo``: the whole platform on this machine, with content to play with.

Starts the stack, migrates, starts the web server, the Celery worker and the scheduler,
loads the demo's content through them, and stays up until Ctrl-C.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recplatform.devstack.errors import StackProblem
from recplatform.devstack.ports import HOST, free_port, http_status, is_free
from recplatform.devstack.process import (
    Children,
    Interrupted,
    interruptible,
    raise_if_interrupted,
    wait_until,
)
from recplatform.devstack.stack import Stack, running

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / ".local"
LOGS = LOCAL / "log"
# Written by manage.py demo_report, for scripts.
DOCUMENT = LOCAL / "demo.json"
DEFAULT_PORT = 8000

WEB = [
    *("gunicorn", "--config", "python:recplatform.gunicorn", "--no-control-socket"),
    "recplatform.wsgi",
]
WORKER = [
    *("celery", "--app", "recplatform", "worker", "--concurrency", "2"),
    *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
]
BEAT = ["celery", "--app", "recplatform", "beat", "--pidfile=", "--loglevel", "INFO"]


def main() -> int:
    """Return 0 after Ctrl-C or passed checks, 1 when something failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="check the demo by HTTP, then end")
    parser.add_argument("--port", type=int, help=f"of the web server; default {DEFAULT_PORT}")
    args = parser.parse_args()
    try:
        with interruptible():
            return run(once=args.once, port=args.port)
    except StackProblem as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 0 if interrupted.exit_code == 130 else interrupted.exit_code


def run(*, once: bool, port: int | None) -> int:
    """Run the demo; return the exit code of its checks, or never."""
    port = choose_port(port)
    say("Starting PostgreSQL, Valkey, DynamoDB, S3 and the embedding model …")
    with running(LOCAL / "demo", log_dir=LOGS) as stack, programs(stack, port) as demo:
        DOCUMENT.unlink(missing_ok=True)
        say("Creating the database tables …")
        demo.manage("migrate", "--verbosity", "0")
        say("Starting the web server, the worker and the scheduler …")
        demo.start()
        say("Loading the catalog …")
        demo.manage("load_demo")
        demo.wait_for("/readyz")
        demo.manage("demo_report", "--base-url", demo.url)
        if once:
            return demo.call("demo_check")
        say(f"\nRunning at {demo.url}; the logs are in {LOGS}. Ctrl-C stops everything.")
        demo.watch()
    return 0


@dataclass(frozen=True, slots=True)
class Programs:
    """The platform's own processes, on top of a stack."""

    stack: Stack
    children: Children
    environment: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the servers; return when the web server answers."""
        python = [sys.executable, "-m"]
        web = [*python, *WEB, "--bind", f"{HOST}:{self.port}"]
        for name, command in (
            ("web", web),
            ("worker", [*python, *WORKER]),
            ("beat", [*python, *BEAT]),
        ):
            self.children.spawn(name, command, env=self.environment, cwd=ROOT)
        self.wait_for("/healthz")

    def manage(self, *arguments: str) -> None:
        """Run a management command; raise StackProblem when it fails."""
        if self.call(*arguments) != 0:
            raise StackProblem(f"manage.py {arguments[0]} failed; the logs are in {LOGS}.")

    def call(self, *arguments: str) -> int:
        """Run a management command with its output here, and return its exit code."""
        command = [sys.executable, "manage.py", *arguments]
        # The commands say in words what their log lines would repeat.
        environment = {"LOG_LEVEL": "WARNING", **self.environment}
        with self.children.foreground(command, env=environment, cwd=ROOT) as process:
            while True:
                self.check()
                try:
                    return process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue

    def wait_for(self, path: str) -> None:
        """Return when the web server answers the path with 200."""
        web = self.children.started[0]

        def answers() -> bool:
            self.check()
            return http_status(self.port, path) == 200

        wait_until(web, answers, timeout_s=90)

    def watch(self) -> None:
        """Raise ServiceFailed as soon as one of the processes ended."""
        try:
            while True:
                self.check()
                time.sleep(0.3)
        except Interrupted:
            say("\nStopping …")
            raise

    def check(self) -> None:
        """Raise ServiceFailed when one of the processes ended, Interrupted when this one shall."""
        raise_if_interrupted()
        ended = self.stack.stopped() or self.children.stopped()
        if ended is not None:
            raise ended.failure()


@contextmanager
def programs(stack: Stack, port: int) -> Iterator[Programs]:
    """Give the platform's processes their environment, and stop them on the way out."""
    children = Children(LOGS)
    environment = {
        **os.environ,
        # Two workers of eight threads leave room for the servers beside them on two cores.
        "WEB_CONCURRENCY": os.environ.get("WEB_CONCURRENCY", "2"),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "SECRET_KEY": os.environ.get("SECRET_KEY") or kept_secret(LOCAL / "secret-key"),
        "DJANGO_SETTINGS_MODULE": "recplatform.settings",
        **stack.environment,
    }
    try:
        yield Programs(stack, children, environment, port)
    finally:
        children.stop()


def choose_port(wanted: int | None) -> int:
    """Return the wanted port, or the usual one if it is free, or a free one."""
    if wanted is not None and not is_free(wanted):
        raise StackProblem(f"Port {wanted} is in use. Name another with --port, or leave it out.")
    return wanted or (DEFAULT_PORT if is_free(DEFAULT_PORT) else free_port())


def kept_secret(path: Path) -> str:
    """Return the secret in the file, made at the first call: sessions outlive a restart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
