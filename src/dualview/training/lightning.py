"""Import Lightning where torchvision's compiled operators can't be loaded (see networks/torchvision_shim.py)."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from dualview.errors import ConfigError
from dualview.networks.torchvision_shim import declare_missing_ops


@cache
def lightning() -> ModuleType:
    """`lightning.pytorch`. Raises ConfigError, saying what to install, if it isn't there."""
    declare_missing_ops()
    try:
        return importlib.import_module("lightning.pytorch")
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs {error.name}: pip install -r requirements.txt") from error
