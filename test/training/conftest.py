"""Recordings of a small world, and a recipe that trains on them in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_world import CLASSES, RIG, write_drive

from dualview.scene.bag_reader import BagReader
from dualview.scene.labels_2d.attach import attach_labels_2d
from dualview.scene.labels_2d.from_3d import labels_from_3d
from dualview.scene.rig import load_rig

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def small_rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rig") / "small.yaml"
    path.write_text(RIG)
    return path


@pytest.fixture(scope="session")
def drives(tmp_path_factory: pytest.TempPathFactory, small_rig: Path) -> Path:
    """A folder with three recorded drives."""
    folder = tmp_path_factory.mktemp("drives")
    rig = load_rig(str(small_rig))
    for seed in range(3):
        write_drive(folder / f"drive{seed}.mcap", rig, seed)
    return folder


@pytest.fixture(scope="session")
def target_drive(tmp_path_factory: pytest.TempPathFactory, small_rig: Path) -> Path:
    """A fourth drive, with 2D labels beside its 3D ones."""
    folder, rig = tmp_path_factory.mktemp("target"), load_rig(str(small_rig))
    plain, labelled = write_drive(folder / "plain.mcap", rig, 4), folder / "labelled.mcap"
    with BagReader(plain) as bag:
        labels, _ = labels_from_3d(bag, rig)
    attach_labels_2d(plain, labelled, rig, labels)
    plain.unlink()
    return labelled


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_recipe(drives: Path, small_rig: Path, cache: Path) -> dict:
    """A recipe, as YAML would say it, that makes a step in a few hundredths of a second."""
    return {
        "model": "dualview-tiny",
        "overrides": {
            "image_size": [64, 96], "class_names": list(CLASSES), "camera_names": ["front", "back"],
            "backbone.name": "resnet18", "backbone.widths": [8, 8], "backbone.strides": [8, 16, 32],
            "bev.grid": {"x_min": -32.0, "y_min": -32.0, "resolution": 4.0, "columns": 16, "rows": 16},
            "bev.depth_bins": {"start": 1.0, "stop": 33.0, "step": 2.0}, "bev.depth_channels": 8,
            "bev.context_channels": 8, "bev.encoder_channels": [8, 8, 8],
            "decoder": {
                "class_count": 2, "embed_dims": 32, "num_levels": 3, "num_anchors": 24, "num_temporal": 12,
                "num_layers": 3, "feedforward_dims": 32, "num_groups": 4, "attention_heads": 4,
                "anchor_encoder": {"dims": [16, 4, 4, 8]},
            },
            "center_head": {"tasks": [[0, 1]], "shared_channels": 8, "branch_channels": 8, "proposals": 6},
        },
        "data": {"train": [str(drives)], "rig": str(small_rig), "cache": str(cache), "workers": 0},
        "clips": {"max_frames": 5, "max_rate": 10.0, "min_rate": 2.0},
        "losses": {"denoising": {"groups": 3, "temporal_groups": 2, "max_boxes": 4}},
        "optimizer": {"learning_rate": 0.001, "warmup_steps": 2, "ema": 0.9},
        "steps": 6, "batch_size": 2, "log_every": 1, "picture_every": 0, "checkpoint_every": 3, "accelerator": "cpu",
    }  # fmt: skip
