"""A short recording and how its label maps are made, for all tests of label maps."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_world import GRID, write_recording, write_teacher

from dualview.teachers.image_teacher import TeacherChoice
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.multi_scale import EnsembleSettings


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("bags") / "short.mcap")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    weights = write_teacher(tmp_path_factory.mktemp("teacher") / "vit.safetensors")
    return LabelSettings(
        TeacherChoice("test_vit", str(weights)), EnsembleSettings((1,)), long_side=96, grid=GRID, rate=5.0,
        teacher_rate=2.5,
    )  # fmt: skip
