"""The Chromium of this machine, which browser tests drive: found, or installed where that can be done.

``make test`` calls this module first. Where there is no browser and none can be installed, the
browser tests are skipped with the reason; with REQUIRE_BROWSER set, as in .ci/run, they fail.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

HELP = (
    "Install it (on Debian: apt-get install chromium), or name a Chromium or Chrome "
    "in the environment variable CHROMIUM."
)


def find() -> str | None:
    """Return the path of a browser that starts, or None."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else NAMES:
        path = shutil.which(name)
        # Ubuntu has a script of that name which only says where to get a snap.
        if path is not None and _starts(path):
            return path
    return None


def required() -> bool:
    """Tell whether a missing browser is an error."""
    return bool(os.environ.get("REQUIRE_BROWSER"))


def install() -> str | None:
    """Install Chromium with apt, and return its path; None where that is not possible."""
    if os.environ.get("CHROMIUM") or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    print("Installing Chromium for the browser tests: a minute or two, once.", flush=True)
    wanted = ["install", "--yes", "--no-install-recommends", "chromium", "fonts-liberation"]
    # The lists of packages are missing in a fresh image, and old in others.
    if not _apt(*wanted):
        _apt("update")
        _apt(*wanted)
    return find()


def main() -> int:
    """Return 0 when there is a browser or none is required."""
    if find() or install():
        return 0
    needed = required()
    print(f"Browser tests {'need' if needed else 'are skipped without'} a browser. {HELP}")
    return 1 if needed else 0


def _starts(path: str) -> bool:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _apt(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
