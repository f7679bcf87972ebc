"""Pictures of pages, for the documents: ``make screenshots`` writes them again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, ViewportSize

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 400, "height": 860}
SHORTEST, TALLEST = 640, 1600


@dataclass(frozen=True)
class Camera:
    """Saves pages under names; without a folder it only looks whether they fit a narrow screen.

    ``looks`` are "light", "dark" and "narrow": the documents show the first.
    """

    page: Page
    folder: Path | None
    looks: tuple[str, ...] = ("light",)

    @classmethod
    def from_environment(cls, page: Page) -> Camera:
        folder = os.environ.get("SCREENSHOTS")
        looks = tuple(os.environ.get("SCREENSHOT_LOOKS", "light").split(","))
        return cls(page, Path(folder) if folder else None, looks)

    def take(self, name: str, *, height: int = TALLEST) -> None:
        """Save the page as it is now, and check that it needs no sideways scrolling at 400 px."""
        self._save(name, "light", height)
        self._theme(dark=True)
        self._save(name, "dark", height)
        self._theme(dark=False)
        self.page.set_viewport_size(NARROW)
        too_wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        self._save(name, "narrow", height * 3)
        self.page.set_viewport_size(WIDE)
        assert too_wide <= 0, f"{self.page.url} is {too_wide} px too wide at 400 px"

    def take_part(self, name: str, part: Locator) -> None:
        """Save one part of the page, as the documents show it."""
        if self.folder is not None:
            # The buttons at the window's foot would cover what is tall.
            self.page.set_viewport_size({**WIDE, "height": 2 * TALLEST})
            part.screenshot(path=self.folder / f"{name}.png", animations="disabled")
            self.page.set_viewport_size(WIDE)

    def _theme(self, *, dark: bool) -> None:
        self.page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", dark)

    def _save(self, name: str, look: str, height: int) -> None:
        if self.folder is None or look not in self.looks:
            return
        # As tall as the page: a picture of more than the window has the buttons below in its middle.
        size = NARROW if look == "narrow" else WIDE
        self.page.set_viewport_size({**size, "height": SHORTEST})
        tall = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({**size, "height": min(tall, height)})
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.wait_for_timeout(250)
        suffix = "" if look == "light" else f"-{look}"
        self.page.screenshot(path=self.folder / f"{name}{suffix}.png", animations="disabled")
        self.page.set_viewport_size(size)
