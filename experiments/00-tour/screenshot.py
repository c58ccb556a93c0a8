"""A picture of a report: `python experiments/00-tour/screenshot.py [PAGE [PNG]]`.

Without arguments: of the run that `make track` writes, into `report.png` beside this file. Wants playwright
(the extra `dev`) and a Chromium of the system.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = Path("artifacts/runs/track-organism-dpo/report.html")
WIDTH, HEIGHT = 1200, 1560
"""The headline, what was said beside what was represented, and the heat maps."""


def shoot(page: Path, picture: Path) -> None:
    """The top of the page, in the light theme."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium on this machine; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.set_default_timeout(120_000)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html[data-drawn]")
        tab.screenshot(path=picture)
        browser.close()


def main() -> None:
    """Read the two optional arguments."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "report.png"
    if not page.is_file():
        sys.exit(f"there is no {page}; `make track` writes one")
    shoot(page, picture)
    print(picture)


if __name__ == "__main__":
    main()
