"""One browser and one stand-in for the service, for all tests of the page."""

import pytest
from browser import chromium
from page_browser import Page
from page_stub import Stub, written


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="session")
def driver(folder):
    with chromium(folder) as browser:
        yield browser


@pytest.fixture(scope="session")
def stub():
    server = Stub()
    yield server
    server.server.should_exit = True


@pytest.fixture
def page(driver, stub, folder):
    """The page, freshly opened. Whatever a test does: no request goes elsewhere, and the console stays silent."""
    stub.reset()
    opened = Page(driver, stub.address, folder).open()
    yield opened
    assert opened.foreign_requests() == []
    assert opened.errors() == []


@pytest.fixture(scope="session")
def image(folder):
    return written(folder / "street.png")
