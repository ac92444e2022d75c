"""Files that come with the package: found beside the sources in a checkout, or under `share/` of an installed
package."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def checkout_directory() -> Path | None:
    """Root of the source checkout that this module runs from, or None when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "package.xml").is_file() and (root / "src" / "dualview").is_dir() else None


def share_directories(package: str = "dualview") -> list[Path]:
    """The `share/<package>` folders that exist, the first to be asked first: ROS' prefixes, then Python's
    own."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p] + [sys.prefix]
    found = [Path(prefix) / "share" / package for prefix in prefixes]
    return [path for i, path in enumerate(found) if path.is_dir() and path not in found[:i]]


def find_directories(relative: str) -> list[Path]:
    """All existing folders `relative` of dualview (such as "config/rigs"): the checkout's first, then the
    installed ones."""
    roots = [root for root in (checkout_directory(),) if root] + share_directories()
    return [root / relative for root in roots if (root / relative).is_dir()]
