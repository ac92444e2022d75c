"""A real drive: LiDAR points, labels and pictures belong together."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dualview.drawing.frame_picture import frame_picture
from dualview.drawing.recording import recording_views
from dualview.scene.bag_reader import BagReader
from dualview.scene.convert.pandaset import convert_pandaset
from dualview.scene.rig import load_rig

REAL = Path(os.environ.get("DUALVIEW_REAL", Path(__file__).parents[2] / "../shared/real"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    source = REAL / "pandaset" / "002"
    if not source.is_dir():
        pytest.skip(f"the real drive isn't at {source}: set DUALVIEW_REAL")
    path = tmp_path_factory.mktemp("pandaset") / "drive.mcap"
    convert_pandaset(source, path, None, range(20, 23), False)
    return path


def test_lidar_points_lie_in_the_labels_that_are_drawn_over_them(recording):
    """Points and labels take different roads (sweep, tf, world, ego; label, world, ego) and must meet."""
    rig = load_rig("pandaset")
    with BagReader(recording) as bag:
        counts = {a.stamp_ns: a.num_lidar_points[a.num_lidar_points != 0] for a in bag.annotations(rig)}
    shares = []
    for view in recording_views(recording, rig):
        stamp = min(counts, key=lambda s: abs(s - view.frame.stamp_ns))
        held = view.truth.boxes.contains(torch.from_numpy(view.points).double()).sum(-1)
        many = counts[stamp] >= 50
        shares += (held[many] / counts[stamp][many]).tolist()
    assert len(shares) >= 50
    assert np.median(shares) == pytest.approx(1.0, abs=0.3)
    assert np.mean(np.array(shares) > 0.3) >= 0.95


def test_a_real_frame_is_drawn(recording):
    view = next(recording_views(recording, load_rig("pandaset")))
    picture = frame_picture(view)
    assert picture.shape[1] > 1500 and picture.std() > 30
    assert (picture == 255).all(-1).sum() > 500  # labels
