"""Do pictures, LiDAR, boxes and poses of a synthetic drive agree with each other?"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.synthetic.actors import velocity
from dualview.scene.synthetic.drive import LEAD_IN, Drive
from dualview.scene.synthetic.ego import twist, world_from_ego
from dualview.scene.synthetic.labels import Glimpse, seen_objects, visible_boxes
from dualview.scene.synthetic.renderer import View
from dualview.scene.synthetic.sensors import calibrated_cameras

TIME = LEAD_IN + 0.2


def boxes_at(drive: Drive, actors: list[int], time: float) -> Boxes3D:
    """World boxes of actors at a time."""
    poses = [drive.world.actors[a].pose(time) for a in actors]
    size = torch.tensor([drive.models[a].size for a in actors], dtype=torch.float64)
    center = torch.tensor([[p.x, p.y, p.z] for p in poses], dtype=torch.float64)
    center[:, 2] += size[:, 2] / 2
    zero = torch.zeros(len(actors), dtype=torch.float64)
    return Boxes3D(
        center,
        size,
        torch.tensor([p.yaw for p in poses], dtype=torch.float64),
        torch.zeros_like(center),
        zero.long(),
        zero,
        zero.long(),
    )


def views(drive: Drive) -> Iterator[tuple[float, View]]:
    """All six cameras at their own exposures, and four looks down from 20 m, where little hides anything."""
    for camera in calibrated_cameras(replace(drive.options, cameras=()), drive.domain):
        exposed = TIME + camera.layout.exposure_ms / 1000
        yield exposed, drive.view(camera, exposed)
    front = calibrated_cameras(replace(drive.options, cameras=("cam_front",)), drive.domain)[0]
    for direction in (0.0, 90.0, 180.0, 270.0):
        high = replace(
            front.layout, position=(0.0, 0.0, 20.0), yaw=direction, pitch=38.0, roll=0.0
        ).ego_from_camera()
        yield (
            TIME,
            View(front.intrinsics, front.width, front.height, world_from_ego(drive.world.ego, TIME) @ high),
        )


def test_projected_boxes_fit_the_segmentation(drive: Drive) -> None:
    overlaps, slacks = [], []
    for time, view in views(drive):
        drive.scene.pose_all(time, view.world_from_camera[:2, 3])
        boxes = visible_boxes(drive.renderer.shoot(view, colour=False).actors)
        glimpse = Glimpse(view, boxes, drive.near_poses(view.world_from_camera[:2, 3]))
        for item in seen_objects(glimpse, drive.models, set(boxes)):
            x0, y0, x1, y1 = item.box
            if item.visibility < 0.94 or item.inside < 0.999 or min(x1 - x0, y1 - y0) < 12:
                continue  # hidden in part, cut off by the image's edge, or too small to be measured in whole pixels
            corners = boxes_at(drive, [item.actor], time).corners()[0].numpy()
            local = (corners - view.world_from_camera[:3, 3]) @ view.world_from_camera[:3, :3]
            pixels = (local @ view.intrinsics.T)[:, :2] / local[:, 2:]
            (u0, v0), (u1, v1) = pixels.min(0), pixels.max(0)
            shared = max(min(x1, u1) - max(x0, u0), 0) * max(min(y1, v1) - max(y0, v0), 0)
            overlaps.append(shared / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared))
            slacks.append(max(u0 - x0, x1 - u1, v0 - y0, y1 - v1))  # how far the silhouette sticks out
    assert len(overlaps) >= 10, (
        "too few unoccluded objects to say anything: choose another seed for the shared drive"
    )
    assert (
        np.median(overlaps) > 0.7
    )  # seen from above, even a box's hull and its bounding rectangle differ that much
    assert min(overlaps) > 0.45  # narrow people in mid-stride, rounded things seen from above
    assert np.median(slacks) < 1.0 and max(slacks) < 10  # px; only mirrors stick out


def test_lidar_points_lie_in_their_boxes(drive: Drive) -> None:
    taken = drive.scan(TIME, 0)
    points = taken.points[:, :3].astype(np.float64)
    pose = world_from_ego(drive.world.ego, TIME) @ drive.layout.lidar.ego_from_lidar()
    world = torch.from_numpy(points @ pose[:3, :3].T + pose[:3, 3])
    actors = sorted(set(taken.actors[taken.actors >= 0].tolist()))
    boxes = boxes_at(drive, actors, TIME)
    grown = Boxes3D(
        boxes.center, boxes.size + 0.15, boxes.yaw, boxes.velocity, boxes.label, boxes.score, boxes.track_id
    )
    inside = grown.contains(world)  # [M, P]
    owner = torch.from_numpy(np.searchsorted(actors, np.maximum(taken.actors, 0)).clip(0, len(actors) - 1))
    own = torch.from_numpy(taken.actors >= 0)
    share = inside[owner[own], own.nonzero()[:, 0]].double().mean().item()
    assert own.sum() > 300 and len(actors) > 10
    assert share > 0.95
    assert taken.hits.sum() == int(own.sum())


def test_lidar_agrees_with_the_rendered_depth(drive: Drive) -> None:
    camera = drive.cameras[0]
    view = drive.view(camera, TIME)
    drive.scene.pose_all(TIME, view.world_from_camera[:2, 3])
    shot = drive.renderer.shoot(view, colour=False, depth=True)
    taken = drive.scan(TIME, 0)
    pose = world_from_ego(drive.world.ego, TIME) @ drive.layout.lidar.ego_from_lidar()
    world = taken.points[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    local = (world - view.world_from_camera[:3, 3]) @ view.world_from_camera[:3, :3]
    local = local[(local[:, 2] > 1) & (local[:, 2] < 50)]
    pixels = np.floor((local @ view.intrinsics.T)[:, :2] / local[:, 2:]).astype(int)
    inside = ((pixels >= 1) & (pixels < [view.width - 1, view.height - 1])).all(1)
    assert inside.sum() > 500
    assert shot.depth is not None
    rendered = shot.depth[pixels[inside, 1], pixels[inside, 0]]
    difference = np.abs(rendered - local[inside, 2]) / local[inside, 2]
    assert np.median(difference) < 0.01
    assert (
        difference < 0.05
    ).mean() > 0.85  # the LiDAR sits higher than the camera: edges hide different things


def test_velocities_are_differences_of_positions(drive: Drive) -> None:
    moving = [a for a in drive.world.actors if a.moving and np.hypot(*velocity(a, TIME)[:2]) > 0.5]
    assert len(moving) > 20
    for actor in moving:
        before, after = actor.pose(TIME - 0.1), actor.pose(TIME + 0.1)
        difference = np.array([after.x - before.x, after.y - before.y]) / 0.2
        assert np.abs(difference - velocity(actor, TIME)[:2]).max() < 0.15, actor.name


def test_twist_and_pose_of_the_vehicle_agree(drive: Drive) -> None:
    for time in (0.1, 0.25, 0.4):
        linear, angular = twist(drive.world.ego, time)
        before, after = (
            world_from_ego(drive.world.ego, time - 0.05),
            world_from_ego(drive.world.ego, time + 0.05),
        )
        moved = world_from_ego(drive.world.ego, time)[:3, :3] @ linear
        np.testing.assert_allclose((after - before)[:3, 3] / 0.1, moved, atol=0.05)
        turned = np.arctan2(after[1, 0], after[0, 0]) - np.arctan2(before[1, 0], before[0, 0])
        assert abs(turned / 0.1 - angular[2]) < 0.02
        assert linear[0] > -0.01  # forwards
        assert np.allclose(before[:3, :3] @ before[:3, :3].T, np.eye(3), atol=1e-9)
