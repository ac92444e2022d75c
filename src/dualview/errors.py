"""The errors that users see. Every message says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class DualViewError(Exception):
    """Base of all errors that dualview raises on purpose; the command line prints it without a traceback, and ends with `exit_status`."""

    exit_status = 1


class ConfigError(DualViewError):
    """A rig file, a detector config, a recipe or a parameter can't be used as it is."""


class BagError(DualViewError):
    """A recording can't be read, lacks a topic that is needed, or can't be written."""


class CalibrationError(DualViewError):
    """Intrinsics, a distortion model or an extrinsic transform can't be used."""


class ImageError(DualViewError):
    """One image can't be decoded or doesn't fit its calibration; the camera is masked for that frame."""


class TransformError(DualViewError):
    """A pose that is needed is not in the transform tree at that time."""


class WeightsError(DualViewError):
    """A checkpoint can't be found, doesn't fit the network, or is of a kind that is refused."""


def disk_is_full(error: BaseException) -> bool:
    """Whether the operating system said that there is no room left."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """ "did you mean '…'?" where one of `known` is at least `cutoff` (0 to 1) like `name`; else `otherwise`."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else otherwise
