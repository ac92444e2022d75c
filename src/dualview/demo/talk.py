"""What the demo says while it works."""

from __future__ import annotations

import sys
from collections.abc import Callable


def say(sentence: str) -> None:
    print(f"· {sentence}", flush=True)


def counter(what: str, total: int) -> Callable[..., None]:
    """Shows "12/80 frames" on a terminal, and every quarter of the way elsewhere."""
    shown = [0]

    def show(done: int, more: str = "") -> None:
        if sys.stderr.isatty():
            print(
                f"\r  {done}/{total} {what}{more}   ",
                end="" if done < total else "\n",
                file=sys.stderr,
                flush=True,
            )
        elif done and done * 4 // max(total, 1) > shown[0]:
            shown[0] = done * 4 // max(total, 1)
            print(f"  {done}/{total} {what}{more}", flush=True)

    return show
