"""A store with a small search in it, the UI over that store, and a browser to look at it.

    pytest tests/browser --screenshots docs/images [--store sqlite:///mlflow.db]

writes down what the tests look at, by default the small search that they make themselves.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

selenium = pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

from pipeline.tracking import store_uri  # noqa: E402
from tests.running import run_script  # noqa: E402

WITHIN = 30.0  # seconds until something is to be seen; most of it is there in one
SEARCH = ["experiment=digits", "data.limit=600", "engine=numpy", "trainer.max_epochs=3", "validation.folds=3"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("browser")
    group.addoption("--screenshots", type=Path, help="folder for pictures of the pages that the tests look at")
    group.addoption("--store", help="another store than the small one that the tests make")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def programs() -> tuple[str, str]:
    """Chromium and its driver, of one version: Debian makes both from one source.

    Without them these tests are skipped, but never where the variable CI is set: there they must run.
    """
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None not in found:
        return str(found[0]), str(found[1])
    told = "no chromium and chromedriver here; `apt install chromium chromium-driver` as root, or see apt.txt"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store that holds a search with its trials, their folds and the final model."""
    if given := request.config.getoption("--store", default=None):
        return str(store_uri_of(given))
    folder = tmp_path_factory.mktemp("browser")
    checkout = folder / "checkout"  # a search writes into conf/
    shutil.copytree(request.getfixturevalue("compiled_checkout"), checkout)
    uri = f"sqlite:///{shutil.copy(request.getfixturevalue('empty_store'), folder / 'mlflow.db')}"
    space = ["activation=relu,tanh", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "search.n_trials=3"]
    search = [*SEARCH, *space, "search/pruner=none"]
    here = {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": uri}
    done = run_script(checkout / "scripts" / "sweep.py", *search, cwd=folder, **here)
    assert done.returncode == 0, done.stderr
    return uri


def store_uri_of(given: str) -> str:
    from pipeline.settings import TrackingSettings

    return store_uri(TrackingSettings(uri=given))


@dataclass(frozen=True, slots=True)
class Site:
    """The UI over the store. pages: what `make ui` prints, by question. server: where it listens."""

    server: str
    pages: dict[str, str]


@pytest.fixture(scope="session")
def site(store: str, repository: Path) -> Iterator[Site]:
    """`make ui`, until the last test is over."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(repository / "scripts" / "ui.py"), "--port", str(port), "--uri", store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ui:
        try:
            assert ui.stdout is not None
            told = []
            for line in ui.stdout:
                told.append(line)
                if "Ctrl-C" in line:
                    break
            pages = dict(re.findall(r"^ +(\S.*?) +(http\S+)$", "".join(told), re.MULTILINE))
            assert pages, "".join(told)
            yield Site(f"http://127.0.0.1:{port}", pages)
        finally:
            ui.send_signal(signal.SIGINT)


class Browser:
    """A person at a screen: sees what is displayed, clicks on it, and waits for what follows."""

    def __init__(self, driver: Any, folder: Path | None) -> None:
        self._driver, self._folder = driver, folder

    def open(self, page: str) -> None:
        self._driver.get("about:blank")  # a link into the page that is open would change nothing but the address
        self._driver.get(page)

    def see(self, text: str, inside: str = "", within: float = WITHIN) -> WebElement:
        """What shows this text, as soon as it does; inside: a CSS selector."""
        return self._wait(lambda: self._find(text, inside), f"{text!r} is not to be seen on", within)

    def sees(self, text: str) -> bool:
        """Whether it is there at once."""
        return self._find(text, "") is not None

    def click(self, text: str, inside: str = "") -> None:
        self.press(lambda: self._find(text, inside), text)

    def press(self, find: Callable[[], WebElement | None], name: str) -> None:
        """Click on what is found, when it can be clicked on."""

        def pressed() -> bool:
            element = find()
            if element is None or not element.is_enabled():
                return False
            element.click()
            return True

        self._wait(pressed, f"{name!r} cannot be clicked on", WITHIN)

    def all(self, selector: str) -> list[WebElement]:
        """Displayed elements, from the top down."""
        found = [e for e in self._driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]
        return sorted(found, key=lambda element: (element.location["y"], element.location["x"]))

    def texts(self, selector: str) -> list[str]:
        return [element.text.strip() for element in self.all(selector)]

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        return self._wait(holds, what, WITHIN)

    def pixels(self, image: WebElement) -> int:
        """How wide the picture is that was loaded, 0 if none was."""
        return int(self._driver.execute_script("return arguments[0].naturalWidth", image))

    def inside(self, frame: WebElement) -> tuple[str, list[int]] | None:
        """The text of the page inside a frame, and how wide its pictures are; None while it is empty."""
        self._driver.switch_to.frame(frame)
        try:
            text = self._driver.find_element(By.TAG_NAME, "body").text
            return (text, [self.pixels(image) for image in self.all("img")]) if text else None
        finally:
            self._driver.switch_to.default_content()

    def keep(self, name: str) -> None:
        """A picture of the page, where one is asked for."""
        if self._folder is not None:
            time.sleep(1.5)  # charts move into their place
            self._folder.mkdir(parents=True, exist_ok=True)
            seen = Image.open(io.BytesIO(self._driver.get_screenshot_as_png()))
            seen.convert("RGB").quantize(128).save(self._folder / f"{name}.png", optimize=True)  # a third of the size

    def _find(self, text: str, inside: str) -> WebElement | None:
        quoted = f'"{text}"' if '"' not in text else f"'{text}'"
        path = f".//*[normalize-space(text())={quoted} or normalize-space(.)={quoted} and not(*)]"
        for top in self._driver.find_elements(By.CSS_SELECTOR, inside or "body"):
            for element in top.find_elements(By.XPATH, path):
                if element.is_displayed():
                    return element
        return None

    def _wait(self, holds: Callable[[], Any], what: str, within: float) -> Any:
        deadline = time.monotonic() + within
        while True:
            try:
                if found := holds():
                    return found
            except (StaleElementReferenceException, NoSuchElementException):
                pass
            except Exception as error:  # something lies above it for a moment
                if "click" not in type(error).__name__.lower() and "interactable" not in type(error).__name__.lower():
                    raise
            if time.monotonic() > deadline:
                shown = self._driver.find_element(By.TAG_NAME, "body").text
                raise AssertionError(f"{what} {self._driver.current_url}, which shows:\n{shown[:3000]}")
            time.sleep(0.1)


@pytest.fixture(scope="session")
def browser(programs: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Chromium without a screen, as somebody who has never been here before."""
    chromium, driver = programs
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1600,1000",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(argument)
    session = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(session, request.config.getoption("--screenshots", default=None))
    finally:
        session.quit()
