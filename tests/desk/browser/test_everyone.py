"""The page is for everyone: quiet, narrow, dark, in two languages, by keyboard and by ear."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from desk import page_run
from desk.browser.chromium import DESKTOP, FAILED, PHONE, Browser

VIEWS = ("#/", "#/model/1", "#/model/2", FAILED)


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_quiet_and_asks_nobody_else(browser: Browser, page: str, view: str) -> None:
    """No error in the console, and everything that is fetched comes from the page's own address."""
    browser.open(page, view)
    assert browser.complaints() == []
    assert browser.hosts() == {page.split("/")[2]}


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_phone(browser: Browser, page: str, view: str) -> None:
    """At 390 points nothing has to be scrolled sideways but tables that say so."""
    browser.resize(PHONE)
    try:
        browser.open(page, view)
        assert browser.script("return document.documentElement.scrollWidth") <= PHONE[0]
        assert browser.script("return document.querySelector('h1').getBoundingClientRect().right") <= PHONE[0]
    finally:
        browser.resize(DESKTOP)


@pytest.mark.parametrize("view", VIEWS)
def test_whoever_cannot_see_is_told(browser: Browser, page: str, view: str) -> None:
    """Links, buttons, tables, pictures and regions have names; there is one main heading."""
    browser.open(page, view)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {"link", "button", "table", "image", "img", "region", "navigation", "columnheader", "rowheader"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"] in named
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert len(browser.all("h1")) == 1
    assert browser.script("return document.documentElement.lang") == "en"


def test_the_keyboard_is_enough(browser: Browser, page: str) -> None:
    """From the first key: over the skip link to a model, and to an inference of it."""
    browser.open(page)

    def press(key: str) -> None:
        browser.driver.switch_to.active_element.send_keys(key)

    def focused() -> str:
        return str(browser.script("return document.activeElement.textContent"))

    press(Keys.TAB)
    assert focused() == "Skip to content"
    press(Keys.ENTER)
    assert browser.script("return document.activeElement.id") == "main"
    for _ in range(10):
        press(Keys.TAB)
        if focused() == page_run.GOOD:
            break
    press(Keys.ENTER)
    browser.until(lambda: browser.script("return document.querySelector('h1').textContent") == page_run.GOOD)
    browser.until(lambda: browser.script("return document.activeElement.id") == "main")
    for _ in range(40):
        press(Keys.TAB)
        if "/inference/" in (browser.script("return document.activeElement.hash") or ""):
            break
    press(Keys.ENTER)
    browser.until(lambda: browser.all(".waterfall"))
    assert browser.complaints() == []


def test_it_is_chinese_in_a_chinese_browser(page: str, tmp_path: Path) -> None:
    """By the browser's own language; no English text of the table is left."""
    browser = Browser(tmp_path, "zh-CN")
    try:
        browser.open(page, "#/model/1")
        assert browser.script("return document.documentElement.lang") == "zh-Hans"
        headings = [heading.text for heading in browser.all("h2")]
        assert headings[:3] == ["延迟随时间的变化", "每秒调用次数", "延迟分布"]
        table = json.loads(browser.script("return document.getElementById('texts').textContent"))
        lines = {line for element in browser.all("body") for line in element.text.splitlines()}
        english = {
            texts["en"] for texts in table.values() if texts["en"] != texts["zh"] and " " in texts["en"]
        }
        assert not lines & english
        assert browser.complaints() == []
    finally:
        browser.driver.quit()


def test_dark_is_dark(browser: Browser, page: str) -> None:
    """As the system prefers; the charts follow at once."""
    shades = []
    font = "return document.getElementById('chart-latency').layout.font.color"
    for scheme in ("dark", "light"):
        told = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", told)
        if scheme == "dark":
            browser.open(page, "#/model/1")
        else:
            browser.until(lambda: browser.script(font) != shades[0][1])
        shades.append(
            browser.script(
                "return [getComputedStyle(document.body).backgroundColor, "
                "document.getElementById('chart-latency').layout.font.color]"
            )
        )
    brightness = [sum(map(int, re.findall(r"\d+", back)[:3])) for back, _ in shades]
    assert brightness[0] < 150
    assert brightness[1] > 600
