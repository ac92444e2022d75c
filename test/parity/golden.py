"""Golden cases: published networks' numbers for given weights and inputs, read from DUALVIEW_PARITY (default ../shared/parity).

A case is a folder with config.json and safetensors files (weights, inputs, expected). `check` compares a tensor with its golden
one and keeps the largest error, so that a run of the parity tests ends with a table (see ../conftest.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).parents[2]


def parity_root() -> Path:
    """Folder of the golden cases; relative paths count from the repository root."""
    return (REPOSITORY / os.environ.get("DUALVIEW_PARITY", "../shared/parity")).resolve()


@dataclass(frozen=True)
class Error:
    """Largest difference of one compared tensor, as a fraction of what its tolerance allows (<= 1 passes)."""

    case: str
    tensor: str
    largest: float
    of_tolerance: float


RECORDED: list[Error] = []


@dataclass(frozen=True)
class GoldenCase:
    """One folder of golden numbers."""

    folder: Path
    _cache: dict = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def config(self) -> dict:
        return json.loads((self.folder / "config.json").read_text())

    def tensors(self, stem: str) -> dict[str, Tensor]:
        """All tensors of `stem`.safetensors."""
        return load_file(self.folder / f"{stem}.safetensors")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return self.tensors("weights")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self.tensors("inputs")

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return self.tensors("expected")

    def check(self, tensor: str, actual: Tensor, atol: float = 0.0, rtol: float = 0.0, expected: Tensor | None = None) -> None:
        """Assert that `actual` equals the golden tensor (by name in expected.safetensors, or given) within atol + rtol |golden|."""
        golden = self.expected[tensor] if expected is None else expected
        assert tuple(actual.shape) == tuple(golden.shape), f"{self.name} {tensor}: shape {list(actual.shape)} != {list(golden.shape)}"
        difference = (actual.detach().double() - golden.double()).abs()
        difference = torch.where(actual.detach().double() == golden.double(), 0.0, difference)  # equal infinities
        allowed = atol + rtol * golden.double().abs()
        largest = float(difference.max()) if difference.numel() else 0.0
        excess = torch.where(difference == 0, 0.0, difference / allowed)
        of_tolerance = float(excess.max()) if excess.numel() else 0.0
        RECORDED.append(Error(self.name, tensor, largest, of_tolerance))
        assert of_tolerance <= 1.0, f"{self.name} {tensor}: largest error {largest:.3g} is {of_tolerance:.3g} x the tolerance"


def golden_case(family: str, name: str) -> GoldenCase:
    """The case `family/name`; the test that asks is skipped if the folder isn't there."""
    folder = parity_root() / family / name
    if not (folder.is_dir() and any(folder.iterdir())):
        pytest.skip(f"no golden case {folder}: set DUALVIEW_PARITY to the folder that holds {family}/")
    return GoldenCase(folder)


def golden_cases(family: str, name: str) -> list[GoldenCase | None]:
    """All cases of one kind under the root, whatever folders lie between; [None] if there is none (see `present`)."""
    found = sorted((parity_root() / family).glob(f"**/{name}*/config.json"))
    return [GoldenCase(path.parent) for path in found] or [None]


def present(case: GoldenCase | None, name: str) -> GoldenCase:
    """`case`, or skip the test with a sentence."""
    if case is None:
        pytest.skip(f"no golden case {name} under {parity_root()}: set DUALVIEW_PARITY to the folder that holds it")
    return case
