"""Importing MuJoCo on a machine without a screen."""

from __future__ import annotations

import ctypes.util
import os
import sys
from types import ModuleType

from dualview.errors import DualViewError

_HOW = (
    "install one of them: `apt-get install libegl1 libgl1-mesa-dri` (EGL; MUJOCO_GL=egl) or "
    "`apt-get install libosmesa6` (MUJOCO_GL=osmesa)"
)


def load_mujoco() -> ModuleType:
    """The mujoco module, set up for off-screen rendering: EGL if the machine has it, else OSMesa, unless MUJOCO_GL says otherwise.

    Raises DualViewError if mujoco isn't installed, or if there is neither EGL nor OSMesa, saying what to install.
    """
    if "mujoco" not in sys.modules and "MUJOCO_GL" not in os.environ:
        if ctypes.util.find_library("EGL"):
            os.environ["MUJOCO_GL"] = "egl"
        elif ctypes.util.find_library("OSMesa"):
            os.environ["MUJOCO_GL"] = "osmesa"
        else:
            raise DualViewError(
                f"synthetic drives are drawn with OpenGL, and this machine has neither EGL nor OSMesa: {_HOW}"
            )
    os.environ.setdefault("LP_NUM_THREADS", "1")  # one core: run several drives side by side instead
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise DualViewError(f"synthetic drives need MuJoCo ({error}): `pip install mujoco`") from error
    except Exception as error:  # its OpenGL loader raises whatever the driver made it raise
        raise DualViewError(
            f"MuJoCo can't use MUJOCO_GL={os.environ.get('MUJOCO_GL')} here ({error}): {_HOW}"
        ) from error
    return mujoco


def open_context(mujoco: ModuleType, width: int, height: int) -> object:
    """An off-screen OpenGL context, made current. Raises DualViewError saying what to install if that fails."""
    try:
        context = mujoco.GLContext(width, height)
        context.make_current()
    except Exception as error:
        raise DualViewError(
            f"no off-screen picture can be drawn with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error}): {_HOW}"
        ) from error
    return context
