"""A real browser that looks at the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

DESKTOP, PHONE = (1400, 900), (390, 844)
FAILED = f"#/inference/{5:032x}/{5:016x}"


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"no {names[0]} on this machine: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found


class Browser:
    """A headless Chromium of its own, and what it was asked for."""

    def __init__(self, profile: Path, language: str = "en-GB", size: tuple[int, int] = DESKTOP) -> None:
        options = ChromeOptions()
        options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
        for flag in (
            *("headless", "hide-scrollbars", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            f"user-data-dir={profile}",
            f"lang={language}",
        ):
            options.add_argument(f"--{flag}")
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options=options, service=ChromeService(_program("chromedriver")))
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        told = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", told)

    def open(self, address: str, view: str = "#/") -> None:
        """Open a view anew, and wait until it is shown."""
        self.driver.get("about:blank")
        self.driver.get(address + view)
        self.shown()

    def shown(self) -> None:
        """Wait until the view of the address is there."""
        self.until(
            lambda: self.script(
                "const root = document.documentElement; const view = location.hash.match(/[0-9a-f]{32}|\\d+$/);"
                "return root.dataset.ready && (!view || root.dataset.ready.includes(view[0]))"
            )
        )

    def until(self, condition: Callable[[], Any]) -> Any:
        # What was just found may be drawn anew before it is read: then it is looked for again.
        waiting = WebDriverWait(
            self.driver, 60, ignored_exceptions=[StaleElementReferenceException, IndexError]
        )
        return waiting.until(lambda _: condition())

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def complaints(self) -> list[str]:
        """What the console has of errors and warnings, refused content included."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in {"SEVERE", "WARNING"}
        ]

    def hosts(self) -> set[str]:
        """Of everything that was fetched."""
        return set(
            self.script("return performance.getEntriesByType('resource').map((e) => new URL(e.name).host)")
        )


def cells(browser: Browser) -> dict[str, dict[str, str]]:
    """What the table of models shows, by name and by the column's label."""
    return {
        row.find_element(By.CSS_SELECTOR, "th a").text: {
            cell.get_attribute("data-label") or "": cell.text
            for cell in row.find_elements(By.CSS_SELECTOR, "td")
        }
        for row in browser.all(".cards tbody tr")
    }
