"""The shim acts only where torchvision's operators really are missing; each case in its own process."""

import subprocess
import sys

import torch

from dualview.networks.torchvision_shim import torchvision_ops_are_missing


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_timm_can_be_imported_in_a_fresh_process():
    assert (
        run("from dualview.networks.torchvision_shim import import_timm; print(import_timm().__name__)")
        == "timm"
    )


def test_it_also_helps_after_an_import_has_failed():
    code = """
try:
    import torchvision
except RuntimeError:
    pass
from dualview.networks.torchvision_shim import import_timm
print(import_timm().is_model('resnet50'))
"""
    assert run(code) == "True"


def test_existing_operators_are_left_alone():
    """An operator of that name that is already there, with an implementation, keeps it."""
    code = """
import torch
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.impl('nms', lambda d, s, t: s + 1, 'CPU')
from dualview.networks.torchvision_shim import declare_missing_ops, torchvision_ops_are_missing
assert not torchvision_ops_are_missing() and declare_missing_ops() is None
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).item())
"""
    assert run(code) == "1.0"


def test_declared_operators_still_fail_when_called():
    code = """
import torch
from dualview.networks.torchvision_shim import declare_missing_ops
if declare_missing_ops() is None:
    print('nothing was missing')
else:
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except NotImplementedError:
        print('fails')
"""
    assert run(code) in ("fails", "nothing was missing")


def test_asking_changes_nothing():
    before = hasattr(torch.ops.torchvision, "nms")
    missing = torchvision_ops_are_missing()
    assert not (missing and before)
