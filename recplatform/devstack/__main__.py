"""``python -m recplatform.devstack run -- COMMAND``: run a command inside a stack of its own."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from recplatform.devstack.errors import StackProblem
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
        with running(args.data.resolve()) as stack:
            return subprocess.call(args.command, env={**os.environ, **stack.environment})
    except StackProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
