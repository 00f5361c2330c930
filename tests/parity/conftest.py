"""``make parity``: the comparisons end with a table of rows: equal, DIFFERENT, not run (docs/parity.md)."""

import pytest
from references import Row, release, summary

ROWS = pytest.StashKey[list]()
COMPARED = pytest.StashKey[bool]()


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture
def compare(request):
    """Takes the rows of a test, all of them before it fails for one that differs by more than its tolerance."""

    def record(*rows):
        request.config.stash[ROWS].extend(rows)
        request.node.stash[COMPARED] = True
        assert [row for row in rows if row.verdict != "equal"] == []

    return record


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker = item.get_closest_marker("parity")
    if marker is None or report.passed or COMPARED in item.stash:
        return
    component, *packages = marker.args
    reference = ", ".join(map(release, packages)) or "none"
    reason = str(call.excinfo.value).split("\n")[0]
    difference = None if report.skipped else float("inf")  # an error is no missing package
    item.config.stash[ROWS].append(Row(component, "", reference, difference, 0.0, reason))


def pytest_sessionfinish(session):
    rows = session.config.stash[ROWS]
    if rows and not any(row.verdict == "equal" for row in rows):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # nothing was compared, which is no success


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[ROWS]:
        terminalreporter.write_line("\n" + summary(config.stash[ROWS]))
