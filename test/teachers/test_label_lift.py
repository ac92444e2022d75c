"""What can't be used of a recording is told, and labels without a point aren't made."""

from pathlib import Path

import pytest
from label_world import RIG, write_recording

from dualview.errors import BagError
from dualview.teachers.label_maker import LabelEngine, make_label_maps
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.label_store import LabelMaps


@pytest.mark.parametrize(
    "fault, reason",
    [
        ({"lidar_frame": "unknown"}, "LiDAR sweeps can't be used .*frame 'unknown' is not in the tree"),
        ({"broken": ("front", "back")}, "back: 3 of 3 images can't be used .*front: 3 of 3"),
    ],
)
def test_a_recording_whose_points_no_camera_sees_is_refused(
    fault: dict, reason: str, settings: LabelSettings, tmp_path: Path
) -> None:
    recording, out = write_recording(tmp_path / "drive.mcap", **fault), tmp_path / "out"
    with pytest.raises(BagError, match=f"no camera of .*drive.mcap sees any LiDAR point.*{reason}"):
        make_label_maps([recording], RIG, settings, out, LabelEngine(quiet=True))
    assert not len(LabelMaps(out).stamps(recording)) and not list(out.rglob("*.safetensors"))


def test_a_camera_that_is_left_out_is_told(settings: LabelSettings, tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "drive.mcap", broken=("back",))
    said: list[str] = []
    make_label_maps([recording], RIG, settings, tmp_path / "out", LabelEngine(quiet=True, tell=said.append))
    assert any("drive.mcap: back: 3 of 3 images can't be used" in line for line in said)
    assert len(LabelMaps(tmp_path / "out").stamps(recording)) == 5
