"""A rig's hash changes with what is read by it, and with nothing else."""

from dataclasses import replace

import numpy as np

from dualview.scene.rig import CameraSpec, Rig
from dualview.scene.rig_hash import rig_hash

CAMERAS = tuple(CameraSpec(name, f"/{name}", False, ego_from_camera=np.eye(4)) for name in ("front", "back"))
RIG = Rig("some", CAMERAS, class_map={"van": "car", "man": "pedestrian"}, assembler={"max_skew": 0.1, "max_wait": 0.2})


def test_names_and_unread_topics_dont_count() -> None:
    other = replace(RIG, name="other", odometry_topic=None, annotations_2d_topic="/{camera}/other")
    assert rig_hash(other) == rig_hash(RIG) and len(rig_hash(RIG)) == 16
    turned = replace(RIG, class_map={"man": "pedestrian", "van": "car"}, assembler={"max_wait": 0.2, "max_skew": 0.1})
    assert rig_hash(turned) == rig_hash(RIG)


def test_all_that_is_read_counts() -> None:
    moved = replace(CAMERAS[0], ego_from_camera=np.eye(4) + 1e-9 * np.eye(4, k=3))
    others = [
        replace(RIG, cameras=(moved, CAMERAS[1])), replace(RIG, cameras=CAMERAS[::-1]), replace(RIG, cameras=CAMERAS[:1]),
        replace(RIG, class_map={"van": "car"}), replace(RIG, class_names=("car",)), replace(RIG, assembler={}),
    ]  # fmt: skip
    assert len({rig_hash(rig) for rig in (RIG, *others)}) == len(others) + 1
