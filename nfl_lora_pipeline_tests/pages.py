"""Pages of ours in a browser, for tests."""

from pathlib import Path
from typing import Any

PATIENCE_MS = 300_000  # a browser beside other work
OPEN_ALL = "() => document.querySelectorAll('details').forEach(each => each.open = true)"
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}


def shown(browser: Any, file: Path, *, width: int, scheme: str = "light") -> Any:
    """A page of a file; `requested` are the addresses that it asked for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(file.as_uri())
    return page


def ground(page: Any) -> str:
    """The colour that the text stands on."""
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def serious(page: Any) -> dict[str, str]:
    """What axe-core finds that keeps people from reading: the rule, and the first element that breaks it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return {each["id"]: each["nodes"][0]["html"] for each in found if each["impact"] in ("serious", "critical")}
