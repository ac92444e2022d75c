"""After the parity tests: a line for each case, its largest error and how much of the tolerance it uses."""

from __future__ import annotations

from golden import RECORDED


def pytest_terminal_summary(terminalreporter) -> None:
    if not RECORDED:
        return
    terminalreporter.section("parity: largest error a case")
    for case in sorted({record.case for record in RECORDED}):
        worst = max(
            (record for record in RECORDED if record.case == case), key=lambda record: record.of_tolerance
        )
        count = sum(record.case == case for record in RECORDED)
        terminalreporter.write_line(
            f"{case:34} {count:4} tensors   worst: {worst.tensor:36} error {worst.largest:.2e}"
            f" = {worst.of_tolerance:6.1%} of tolerance"
        )
