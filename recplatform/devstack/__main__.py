"""``python -m recplatform.devstack run -- COMMAND``: run a command inside a stack of its own."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recplatform.devstack.errors import StackProblem
from recplatform.devstack.process import Interrupted, die_with, interruptible, raise_if_interrupted
from recplatform.devstack.stack import running

DEFAULT_DATA = Path(".local/stack")


def main() -> int:
    """Return the exit code of the command."""
    parser = argparse.ArgumentParser(prog="python -m recplatform.devstack", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="run a command with the servers up and in its environment")
    run.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that keeps the data")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    args = parser.parse_args()
    try:
        with interruptible(), running(args.data.resolve()) as stack:
            return _call(args.command, {**os.environ, **stack.environment})
    except StackProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code


def _call(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command in the foreground: the terminal, and its Ctrl-C, are the command's."""
    # Handled by doing nothing: what is ignored outright would be ignored by the command too.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: die_with(parent, signal.SIGTERM)
        )
    except FileNotFoundError as exc:
        raise StackProblem(f'There is no command "{command[0]}".') from exc
    try:
        while True:
            raise_if_interrupted()
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        signal.signal(signal.SIGINT, former)


if __name__ == "__main__":
    sys.exit(main())
