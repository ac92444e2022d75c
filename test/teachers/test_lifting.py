"""Features at LiDAR points: exact places, each camera's own time, objects that move, the vehicle's own returns."""

import numpy as np
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import Annotations, SurroundFrame
from dualview.scene.keyframes import Keyframes
from dualview.scene.recorded import LidarSweep
from dualview.teachers.bev_pooling import pool_to_bev
from dualview.teachers.feature_cloud import FeatureCloud, join, merge
from dualview.teachers.instances import assign_points, instances_at
from dualview.teachers.lifting import LiftSettings, hidden, lift_frame, remove_ego, sample_features

START = 1_700_000_000_000_000_000
WIDTH, HEIGHT, FOCAL = 200, 100, 100.0
FORWARD = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
SETTINGS = LiftSettings(voxel=1e-3)


def ramp(frame: SurroundFrame, camera: int) -> torch.Tensor:
    """Features (u, v, camera) at every pixel of a camera, in px."""
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return torch.stack([u, v, torch.full_like(u, camera)])


def frame_at(seconds: float, skew: float = 0.0, speed: float = 0.0, cameras: int = 1) -> SurroundFrame:
    """A vehicle on the x axis with forward cameras that expose `skew` s late."""

    def pose(t: float) -> torch.Tensor:
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[0, 3] = speed * t
        return matrix

    exposure = START + round((seconds + skew) * 1e9)
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return SurroundFrame(
        START + round(seconds * 1e9), torch.zeros(cameras, 3, HEIGHT, WIDTH, dtype=torch.uint8),
        torch.full((cameras,), exposure), intrinsics.repeat(cameras, 1, 1), FORWARD.repeat(cameras, 1, 1),
        pose(seconds + skew).repeat(cameras, 1, 1), pose(seconds), torch.ones(cameras, dtype=torch.bool),
    )  # fmt: skip


def sweep_of(
    world: list[list[float]], seconds: float, origin: tuple[float, float, float] = (0, 0, 2)
) -> LidarSweep:
    points = np.array(world, np.float64) - origin
    rows = np.c_[points, np.ones(len(points))].astype(np.float32)
    return LidarSweep("/lidar", START + round(seconds * 1e9), rows, np.array(origin, np.float64))


def moving_car(
    seconds: float, name: str = "car1", class_name: str = "car", speed: float = 10.0
) -> Annotations:
    """A car that drives to the left, at x = 20 m, y = speed * t; it looks where it drives."""
    boxes = Boxes3D(
        torch.tensor([[20.0, speed * seconds, 1.0]], dtype=torch.float64), torch.tensor([[4.0, 2.0, 2.0]]),
        torch.tensor([torch.pi / 2]), torch.tensor([[0.0, speed, 0.0]]), torch.zeros(1, dtype=torch.int64),
        torch.ones(1), torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    stamp = START + round(seconds * 1e9)
    return Annotations(stamp, boxes, (class_name,), (name,), torch.tensor([1]), torch.ones(1))


def test_features_are_read_at_exact_pixels() -> None:
    features = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    location = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.5, 0.25], [0.5, 0.5]])
    torch.testing.assert_close(sample_features(features, location)[:, 0], torch.tensor([1.0, 3.0, 2.0, 4.0]))


def test_a_still_point_with_the_cameras_own_pose() -> None:
    """The vehicle drives 1 m between anchor and exposure: u = cx - f y / (x - 1)."""
    lifted = lift_frame([frame_at(0, 0.05, 20.0)], [sweep_of([[21.0, 2.0, 1.0]], 0)], None, ramp, 3, SETTINGS)
    assert lifted.instances == {} and len(lifted.static) == 1
    torch.testing.assert_close(lifted.static.xyz[0], torch.tensor([21.0, 2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(lifted.static.features[0], torch.tensor([100 - 10.0, 50 - 5.0, 0.0]))


def test_a_point_counts_for_every_camera_that_sees_it() -> None:
    lifted = lift_frame([frame_at(0, cameras=2)], [sweep_of([[20.0, 2.0, 1.0]], 0)], None, ramp, 3, SETTINGS)
    assert lifted.static.count.tolist() == [2.0] and float(lifted.static.features[0, 2]) == 0.5


def test_points_behind_beside_and_far_away_are_left_out() -> None:
    world = [[-5.0, 0, 1], [5.0, 20.0, 1], [80.0, 0, 1], [20.0, 0, 1]]
    lifted = lift_frame([frame_at(0)], [sweep_of(world, 0)], None, ramp, 3, SETTINGS)
    assert lifted.static.xyz.tolist() == [[20.0, 0.0, 1.0]]


def test_returns_of_the_vehicle_itself() -> None:
    """The box turns with the vehicle."""
    turned = torch.eye(4, dtype=torch.float64)
    turned[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    relative = torch.tensor([[2.0, 0.5, -1.0], [0.5, 2.0, -1.0], [0.5, 3.0, -1.0]])
    assert remove_ego(relative, torch.eye(4).double(), (2.7, 1.0)).tolist() == [False, True, True]
    assert remove_ego(relative, turned, (2.7, 1.0)).tolist() == [True, False, True]


def test_a_moving_cars_points_follow_it_to_the_exposure() -> None:
    """Swept at 0 s, exposed at 0.1 s: the car is 1 m further left, 5 px at 20 m."""
    keyframes = Keyframes([moving_car(0.0), moving_car(0.2)])
    sweep = sweep_of([[20.0, 1.0, 1.5], [20.0, 5.0, 1.5]], 0)  # a point of the car, and one of the street
    lifted = lift_frame([frame_at(0, 0.1)], [sweep], keyframes, ramp, 3, SETTINGS)
    assert lifted.static.xyz.tolist() == [[20.0, 5.0, 1.5]]
    torch.testing.assert_close(lifted.static.features[0, :2], torch.tensor([100 - 25.0, 50 - 7.5]))
    car = lifted.instances["car1"]
    torch.testing.assert_close(
        car.xyz, torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64)
    )  # 1 m before its centre
    torch.testing.assert_close(car.features[0, :2], torch.tensor([100 - 10.0, 50 - 7.5]), atol=1e-4, rtol=0)


def test_an_object_is_gathered_over_its_track_and_leaves_no_trail() -> None:
    """Its front is seen at 0 s and its rear at 0.5 s; the map at 1 s has both where the car is by then."""
    keyframes = Keyframes([moving_car(t / 10) for t in range(11)])
    first = lift_frame(
        [frame_at(0)], [sweep_of([[20.0, 1.5, 1.5]], 0)], keyframes, lambda *c: ramp(*c) * 0 + 2, 3, SETTINGS
    )
    later = [[20.0, 5.0 - 1.5, 1.5], [20.0, 0.0, 0.0]]  # the car's rear, and the road where it stood
    second = lift_frame(
        [frame_at(0.5)], [sweep_of(later, 0.5)], keyframes, lambda *c: ramp(*c) * 0 + 6, 3, SETTINGS
    )
    static = merge(join([first.static, second.static]), 0.2)
    car = merge(join([first.instances["car1"], second.instances["car1"]]), 0.2)
    instances = instances_at(keyframes, START + 10**9)
    assert instances is not None
    cloud = join([static, car.moved(instances.known["car1"].matrix())])
    label = pool_to_bev(cloud, BevGrid(0.0, -16.0, 1.0, 32, 32), 0.5)
    found = {
        (c % 32, c // 32 - 16): f
        for c, f in zip(label.cells.tolist(), label.features[:, 0].tolist(), strict=True)
    }
    assert found == {(20, 11): 2.0, (20, 8): 6.0, (20, 0): 6.0}  # front at y 11.5, rear at 8.5, and the road


def test_still_classes_belong_to_the_street() -> None:
    instances = instances_at(Keyframes([moving_car(0.0, class_name="traffic_cone")]), START)
    assert instances is not None and instances.known == {}


def test_boxes_are_enlarged_by_the_whole_amount() -> None:
    instances = instances_at(Keyframes([moving_car(0.0)]), START)
    assert instances is not None
    world = torch.tensor(
        [[20.0, 2.19, 1.0], [20.0, 2.21, 1.0], [21.19, 0, 1.0], [20.0, 0.0, -0.19]], dtype=torch.float64
    )
    assert assign_points(world, instances, 0.4).owner.tolist() == [0, -1, 0, 0]


def test_objects_that_one_keyframe_alone_knows_are_left_out() -> None:
    """Between keyframes it can't be said where they are: their points are neither street nor object."""
    keyframes = Keyframes([moving_car(0.0), moving_car(0.4, name="another")])
    instances = instances_at(keyframes, START + 100_000_000)
    assert instances is not None and instances.known == {} and len(instances.doubtful) == 2
    sweep = sweep_of([[20.0, 1.0, 1.5], [20.0, -9.0, 1.5]], 0.1)
    lifted = lift_frame([frame_at(0.1)], [sweep], keyframes, ramp, 3, SETTINGS)
    assert lifted.static.xyz.tolist() == [[20.0, -9.0, 1.5]] and lifted.instances == {}
    beside = instances_at(keyframes, START + 40_000_000)  # the first is carried along
    assert beside is not None and len(beside.known) == 1 and len(beside.doubtful) == 1


def test_a_sweep_at_an_unlabelled_time_is_left_out() -> None:
    keyframes = Keyframes([moving_car(0.0), moving_car(5.0)])
    lifted = lift_frame([frame_at(2.0)], [sweep_of([[20.0, 9.0, 1.5]], 2.0)], keyframes, ramp, 3, SETTINGS)
    assert len(lifted.static) == 0 and lifted.static.features.shape == (0, 3)


def test_hidden_points() -> None:
    """A return 1 m behind another one, 3 px beside it, is hidden; 20 px beside it or 0.3 m behind it isn't."""
    pixel = torch.tensor([[50.0, 50.0], [53.0, 50.0], [70.0, 50.0], [50.0, 52.0]])
    depth = torch.tensor([10.0, 11.0, 11.0, 10.3])
    every = torch.ones(4, dtype=torch.bool)
    assert hidden(pixel, depth, every, SETTINGS).tolist() == [False, True, False, False]
    assert hidden(pixel, depth, torch.tensor([False, True, True, True]), SETTINGS).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert hidden(pixel, depth, ~every, SETTINGS).tolist() == [False] * 4


def test_an_empty_cloud_joins() -> None:
    joined = join([FeatureCloud.empty(3), FeatureCloud.empty(3)])
    assert len(merge(joined, 0.2)) == 0
