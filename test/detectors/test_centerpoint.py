"""CenterPoint: steps, resets, what it says without LiDAR, and clouds that move with the vehicle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detector_frames import seen_from, surround_frame

from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.centerpoint import CenterPoint
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.checkpoint import build_detector, load_checkpoint, save_checkpoint
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO
from dualview.detectors.inputs import DetectorInputs, inputs_from_frames
from dualview.detectors.json_config import override
from dualview.detectors.presets import preset_config
from dualview.detectors.systems import make_detector
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.lidar_branch import LidarBranch, LidarBranchConfig
from dualview.scene.frame import SurroundFrame

BRANCH = LidarBranchConfig(
    grid=BevGrid.centered(16.0, 2.0), voxel=1.0, max_points=6, max_voxels=(400, 400), features=(8,), channels=(8, 8),
    layers=(1, 1), strides=(1, 2), pyramid_channels=(4, 4),
)  # fmt: skip


def small_config(**changes) -> CenterPointConfig:
    config = CenterPointConfig(
        name="small-centerpoint", branch=BRANCH, center_head=CenterHeadConfig(((0, 1), (2,)), 8, 8),
        decoding=CenterDecodingConfig("circle", candidates=40, per_task=10), class_names=("car", "truck", "pedestrian"),
        track_threshold=0.0, image_size=(64, 96),
    )  # fmt: skip
    return replace(config, **changes)


def detector_of(config: CenterPointConfig | None = None) -> CenterPoint:
    detector = build_detector(config or small_config(), seed=2)
    assert isinstance(detector, CenterPoint)
    return detector.eval()


def frame_at(seconds: float, seed: int = 0) -> SurroundFrame:
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(500, 5, generator=generator) - 0.5) * torch.tensor([32.0, 32, 4, 200, 0.5])
    return replace(surround_frame(small_config(), seconds=seconds), points=points)


def test_steps_and_resets() -> None:
    detector = detector_of()
    state = detector.initial_state()
    first, state = detector.step(frame_at(0.0), state)
    second, state = detector.step(frame_at(0.1, 1), state)
    assert first.bev.features.shape == (8, 16, 16)
    assert 0 < len(second.tracks) <= 20 and first.bev.valid.all()
    again, _ = detector.step(frame_at(0.0), detector.initial_state(state.next_track_id))
    assert torch.equal(again.tracks.center, first.tracks.center)
    assert int(again.tracks.track_id.min()) == state.next_track_id
    tracks_only, _ = detector.step(frame_at(0.0), detector.initial_state(), with_bev_map=False)
    assert tracks_only.bev is None


def test_a_frame_without_points_is_refused() -> None:
    detector = detector_of()
    with pytest.raises(ConfigError, match="lidar_topics"):
        detector.step(surround_frame(small_config()), detector.initial_state())
    with pytest.raises(ValueError, match=r"inputs\.points"):
        detector(inputs_from_frames([surround_frame(small_config())], (64, 96)), None)


def test_the_working_frame_is_only_a_point_of_view() -> None:
    inside, outside = detector_of(small_config(working_from_ego=LIDAR_TOP_FROM_EGO)), detector_of()
    working, frame = inside.config.working_from_ego_matrix, frame_at(0.0)
    ours, _ = inside.step(frame, inside.initial_state())
    theirs, _ = outside.step(seen_from(frame, working), outside.initial_state())
    expected = theirs.tracks.transformed(torch.linalg.inv(working))
    assert torch.allclose(ours.tracks.score, expected.score, atol=1e-4)
    assert torch.allclose(ours.tracks.center, expected.center, atol=2e-3)
    assert torch.allclose(ours.bev.features, theirs.bev.features.rot90(1, (-2, -1)), atol=1e-4)
    plain, _ = outside.step(frame, outside.initial_state())
    assert not torch.allclose(plain.bev.features, ours.bev.features, atol=1e-2)


def test_an_empty_cloud_is_served() -> None:
    detector = detector_of()
    output, _ = detector.step(replace(frame_at(0.0), points=torch.zeros(0, 5)), detector.initial_state())
    assert output.tracks.center.isfinite().all()


def test_checkpoint(tmp_path) -> None:
    detector = detector_of()
    save_checkpoint(detector, tmp_path / "teacher.safetensors")
    loaded = load_checkpoint(tmp_path / "teacher.safetensors").eval()
    assert isinstance(loaded, CenterPoint) and loaded.config == detector.config
    points = [frame_at(0.0).points]
    with torch.no_grad():
        assert torch.equal(loaded.encode(points), detector.encode(points))


def test_published_shapes() -> None:
    """Both published teachers give a map of 128 x 128 cells of 0.8 m; a voxel teacher's has 512 channels."""
    voxels, pillars = (preset_config(f"centerpoint-{name}").branch for name in ("voxel", "pillar"))
    assert voxels.voxel_grid.counts == (1024, 1024, 40) and voxels.pyramid_factors == (1.0, 2.0)
    assert pillars.voxel_grid.counts == (512, 512, 1) and pillars.pyramid_factors == (0.5, 1.0, 2.0)
    with torch.device("meta"):
        for name, channels in (("voxel", 512), ("pillar", 384), ("tiny", 144)):
            assert make_detector(preset_config(f"centerpoint-{name}")).lidar_branch.out_channels == channels
        branch = LidarBranch(voxels, 5)
        assert (branch.encoder.layers, branch.encoder.out_channels) == (2, 256)


def test_grids_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of voxel"):
        replace(BRANCH, voxel=0.7)
    with pytest.raises(ValueError, match="product of its strides"):
        replace(BRANCH, grid=BevGrid.centered(15.0, 2.0), strides=(2, 4))
    with pytest.raises(ValueError, match="four stages"):
        LidarBranchConfig(encoder="voxels", voxel=0.1)
    with pytest.raises(ValueError, match="neither a multiple nor a whole part"):
        replace(BRANCH, grid=BevGrid.centered(18.0, 2.0), strides=(1, 3))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("voxel", 0), ("voxel_height", -1.0), ("max_points", 0), ("max_voxels", (0, 10)), ("features", ()), ("strides", (2, 0)),
        ("layers", (1, -1)), ("channels", ()),
    ],
)  # fmt: skip
def test_sizes_that_can_not_be_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        replace(BRANCH, **{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoding.per_task": -1}, "per_task -1"), ({"decoding.candidates": 0}, "candidates 0"), ({"decoding.limit": -5}, "limit -5"),
        ({"max_tracks": 0}, "max_tracks 0"), ({"track_threshold": 5.0}, "track_threshold 5.0"),
        ({"track_threshold": float("nan")}, "track_threshold must be a finite number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["centerpoint-tiny", "bevdet-tiny"])
def test_settings_by_which_nothing_is_reported_are_refused(name: str, changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        override(preset_config(name), changes)


def test_inputs_with_clouds_are_batched() -> None:
    frames = [frame_at(0.0), frame_at(0.1, 1)]
    inputs = [
        replace(inputs_from_frames([f], (64, 96)), points=(f.points[: 100 + i],))
        for i, f in enumerate(frames)
    ]
    both = DetectorInputs.concatenated(inputs).to("cpu")
    assert [len(cloud) for cloud in both.points] == [100, 101] and both.images.shape[0] == 2
    assert both.bev_augmentation is None
    detector = detector_of()
    with torch.no_grad():
        whole = detector(both, None)
        single = detector(inputs[1], None)
    assert torch.allclose(whole.bev.features[1:], single.bev.features, atol=1e-5)
    assert whole.bev.depth_logits is None and whole.decoder is None
