"""After the tests, whatever processes they ran in: a line for each parity case, its largest error and how much of the tolerance it uses."""

from __future__ import annotations

from collections import defaultdict


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    # The last report of a test has all that parity/conftest.py added.
    last = [report for report in reports if getattr(report, "when", None) == "teardown"]
    cases: dict[str, list[dict]] = defaultdict(list)
    for name, error in (entry for report in last for entry in report.user_properties):
        if name == "parity":
            cases[error["case"]].append(error)
    if not cases:
        return
    terminalreporter.section("parity: largest error a case")
    for case, errors in sorted(cases.items()):
        worst = max(errors, key=lambda error: error["of_tolerance"])
        terminalreporter.write_line(
            f"{case:34} {len(errors):4} tensors   worst: {worst['tensor']:36} error {worst['largest']:.2e}"
            f" = {worst['of_tolerance']:6.1%} of tolerance"
        )
