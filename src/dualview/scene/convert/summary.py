"""What a conversion did, and what it had to pass over."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class ConversionSummary:
    """Counts of what was written, and of what was missing or unusable in the source with examples. `notes`
    are findings."""

    written: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def pass_over(self, what: str, example: str) -> None:
        """Count something that could not be converted; the first few examples of each kind are kept."""
        self.passed_over[what] += 1
        if len(self.examples[what]) < 5:
            self.examples[what].append(example)

    def __str__(self) -> str:
        lines = [
            "written: "
            + (", ".join(f"{count} {what}" for what, count in sorted(self.written.items())) or "nothing")
        ]
        for what, count in sorted(self.passed_over.items()):
            more = ", …" if count > len(self.examples[what]) else ""
            lines.append(f"passed over: {count} {what} ({', '.join(self.examples[what])}{more})")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])
