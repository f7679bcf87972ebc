"""What can go wrong with the embedded stack.

StackProblem                 a sentence for the person at the terminal
├── ComponentMissing         no build of a component for this platform
├── ServiceFailed            a server did not start, or stopped by itself
└── AlreadyRunning           another process holds the same data folder
"""

import platform
from pathlib import Path


class StackProblem(Exception):
    """The stack cannot run; the message says why and what to do next."""


class ComponentMissing(StackProblem):
    """A component has no build here; the message names the variable that replaces it."""

    def __init__(self, component: str, wheel: str, variable: str, detail: object = "") -> None:
        here = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        reason = f" ({detail})" if detail else ""
        super().__init__(
            f"The embedded {component} cannot run on this machine: "
            f'the package "{wheel}" has no build for {here}{reason}.\n'
            f"Set {variable} to use one of your own, and run the command again."
        )


class ServiceFailed(StackProblem):
    """A server did not become ready, or stopped by itself."""

    def __init__(self, service: str, what: str, log: Path, tail: str) -> None:
        super().__init__(f"{service} {what}. The end of {log}:\n{tail}")
        self.service = service


class AlreadyRunning(StackProblem):
    """Another process runs a stack in the same folder."""
