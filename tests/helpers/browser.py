"A browser for tests of pages; they are skipped, and say so, where there is none."

import shutil

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1000",
)


@pytest.fixture
def browser(tmp_path):
    "Chromium without a window, which asks no other machine and logs what pages ask."
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: the page was not tried in a browser"
    )
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on PATH: the page was not tried in a browser")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield found
    finally:
        found.quit()
