"""`/diagnostics`: once a second and whenever something changed."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dualview.ros.conversions import header_message
from dualview.ros.health import Level, Report

_LEVELS = {
    Level.OK: DiagnosticStatus.OK, Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR, Level.STALE: DiagnosticStatus.STALE,
}  # fmt: skip


class DiagnosticsSchedule:
    """Decides when reports go out: every `period` seconds of wall time, and at a change, at most every `pause` seconds."""

    def __init__(self, period: float = 1.0, pause: float = 0.1) -> None:
        self._period, self._pause = period, pause
        self._last: float | None = None
        self._signature: list[object] = []

    def is_due(self, reports: list[Report], wall: float) -> bool:
        """True if `reports` are to be published now; they then count as published."""
        signature: list[object] = [report.signature for report in reports]
        since = float("inf") if self._last is None else wall - self._last
        if since < self._period and (signature == self._signature or since < self._pause):
            return False
        self._last, self._signature = wall, signature
        return True


def diagnostics_message(
    reports: list[Report], stamp_ns: int, node_name: str, hardware_id: str
) -> DiagnosticArray:
    """The reports as statuses named "<node>: <what>"."""
    return DiagnosticArray(
        header=header_message(stamp_ns, ""),
        status=[
            DiagnosticStatus(
                level=_LEVELS[report.level],
                name=f"{node_name}: {report.name}",
                message=report.message,
                hardware_id=hardware_id,
                values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
            )
            for report in reports
        ],
    )
