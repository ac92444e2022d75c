"""Import timm where torchvision's compiled operators can't be loaded.

torchvision's wheel from PyPI is built against the CUDA build of torch. Beside a CPU-only torch its shared
library doesn't load, and `import torchvision` (hence `import timm`) then stops at "operator torchvision::nms
does not exist", although nothing here ever calls that operator. Declaring the missing operators' schemas,
without an implementation, lets the import pass; calling one of them still fails loudly. Where the shared
library loads, nothing is touched.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

_MISSING_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def torchvision_ops_are_missing() -> bool:
    """True if torchvision is installed but its compiled operators neither are nor can be registered."""
    if hasattr(torch.ops.torchvision, "nms"):
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False  # no torchvision at all: importing it will say so itself
    for folder in spec.submodule_search_locations:
        for library in sorted(Path(folder).glob("_C*.so")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
    return not hasattr(torch.ops.torchvision, "nms")


@cache
def declare_missing_ops() -> torch.library.Library | None:
    """Declare torchvision's missing operators once per process; None if nothing was missing.

    The returned library must stay alive (the cache sees to it): its declarations go when it goes.
    """
    if not torchvision_ops_are_missing():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in _MISSING_OPERATORS:
        library.define(name + _SCHEMA)
    return library


def import_timm() -> ModuleType:
    """The `timm` module. Slow the first time (about two seconds), so call it where a backbone is made, not at
    import.
    """
    declare_missing_ops()
    return importlib.import_module("timm")
