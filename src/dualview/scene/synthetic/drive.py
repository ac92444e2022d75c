"""A drive: the world, the vehicle's sensors, and the recording that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.bag_writer import BagWriter
from dualview.scene.frame import Annotations
from dualview.scene.rig import Rig, load_rig
from dualview.scene.synthetic.actors import Pose, velocity
from dualview.scene.synthetic.domains import find_domain
from dualview.scene.synthetic.ego import twist, world_from_ego
from dualview.scene.synthetic.headless import load_mujoco
from dualview.scene.synthetic.labels import Glimpse, SeenObject, seen_objects, visible_boxes
from dualview.scene.synthetic.lidar import Sweep, sweep
from dualview.scene.synthetic.object_model import CLASS_NAMES
from dualview.scene.synthetic.options import QUALITIES, DriveOptions
from dualview.scene.synthetic.renderer import Film, Renderer, View
from dualview.scene.synthetic.rig_layouts import find_layout
from dualview.scene.synthetic.scene_model import SceneModel, build_scene_model
from dualview.scene.synthetic.scenery import build_scenery
from dualview.scene.synthetic.sensors import Calibrated, calibrated_cameras
from dualview.scene.synthetic.world import World, build_world

EPOCH_NS = 1_600_000_000 * 10**9
LEAD_IN = 0.1  # s of world time before the first set, so that early exposures still lie in the drive
ANNOTATION_RANGE = 80.0  # m around the vehicle
MEMORY = 3.0  # s for which an object that is out of sight goes on being annotated
MIN_BOX_AREA = 100.0  # px^2 of a 1600 px wide image, of a 2D label
MIN_INSIDE = 0.2  # share of the unclipped box inside the image, of a 2D label
_ODOMETRY_RATE = 50.0


@dataclass
class DriveSummary:
    """What a drive holds."""

    path: Path
    images: int = 0
    sweeps: int = 0
    keyframes: int = 0
    boxes: Counter[str] = field(default_factory=Counter)  # annotated boxes by class, over all keyframes
    instances: Counter[str] = field(default_factory=Counter)  # different objects by class
    distance: float = 0.0  # m driven

    def __str__(self) -> str:
        per_frame = sum(self.boxes.values()) / max(self.keyframes, 1)
        classes = ", ".join(f"{n} {c}" for n, c in sorted(self.instances.items(), key=lambda item: -item[1]))
        return (
            f"{self.path}: {self.images} images, {self.sweeps} sweeps, {self.keyframes} annotated instants with "
            f"{per_frame:.1f} boxes each, {self.distance:.0f} m driven; objects: {classes or 'none'}"
        )


class Drive:
    """Everything that is open while a drive is made. Use `with`, then `write`."""

    def __init__(self, options: DriveOptions) -> None:
        self.options = options
        self.domain = find_domain(options.domain)
        self.layout = find_layout(options.rig)
        self.cameras = calibrated_cameras(options, self.domain)
        quality = QUALITIES[options.quality]
        mujoco = load_mujoco()
        self.world: World = build_world(options.seed, options.seconds + 2 * LEAD_IN, self.domain)
        size = (self.cameras[0].height, self.cameras[0].width)
        self.scene: SceneModel = build_scene_model(
            mujoco, self.world, build_scenery(self.world), size, quality.shadow_map, quality.samples
        )
        self.renderer = Renderer(self.scene, size, quality.shadow_map > 0)
        self.film = Film(self.domain, options.seed, size, smooth=quality.samples == 0)
        self.models = [actor.model for actor in self.world.actors]
        self._last_seen: dict[int, float] = {}
        self._counted: set[int] = set()

    def __enter__(self) -> Drive:
        return self

    def __exit__(self, *_: object) -> None:
        self.renderer.close()

    # ---- time and place -------------------------------------------------------------------------------------------------

    def stamp(self, time: float) -> int:
        """World time (s) as a stamp (ns); every drive has its own hour."""
        return EPOCH_NS + self.options.seed * 3600 * 10**9 + round(time * 1e6) * 1000

    def instants(self) -> list[float]:
        """World time of each set of images: the exposure of a camera with offset 0."""
        return [
            LEAD_IN + k / self.options.camera_rate
            for k in range(max(round(self.options.seconds * self.options.camera_rate), 1))
        ]

    def sweep_times(self) -> list[float]:
        """World time of each LiDAR sweep."""
        if self.options.lidar_rate == 0:
            return []
        return [
            LEAD_IN + k / self.options.lidar_rate
            for k in range(max(round(self.options.seconds * self.options.lidar_rate), 1))
        ]

    def view(self, camera: Calibrated, time: float) -> View:
        """A camera where it is at a time."""
        pose = world_from_ego(self.world.ego, time) @ camera.ego_from_camera
        return View(camera.intrinsics, camera.width, camera.height, pose)

    def near_poses(self, around: np.ndarray) -> dict[int, Pose]:
        """Actors within the annotated range of a place (x, y), where the scene was last posed."""
        return {
            n: p
            for n, p in self.scene.posed.items()
            if (p.x - around[0]) ** 2 + (p.y - around[1]) ** 2 < ANNOTATION_RANGE**2
        }

    # ---- sensors --------------------------------------------------------------------------------------------------------

    def photograph(self, camera: Calibrated, time: float, number: int) -> tuple[np.ndarray, Glimpse]:
        """A camera's picture uint8 [H, W, 3] at its exposure, and what it holds of the objects near by."""
        view = self.view(camera, time)
        around = view.world_from_camera[:2, 3]
        self.scene.pose_all(time, around)
        shot = self.renderer.shoot(view)
        assert shot.image is not None
        return self.film.develop(shot.image, number), Glimpse(
            view, visible_boxes(shot.actors), self.near_poses(around)
        )

    def scan(self, time: float, number: int) -> Sweep:
        """A LiDAR sweep."""
        pose = world_from_ego(self.world.ego, time)
        self.scene.pose_all(time, pose[:2, 3])
        return sweep(
            self.scene,
            self.layout.lidar,
            pose @ self.layout.lidar.ego_from_lidar(),
            self.options.seed,
            number,
        )

    # ---- labels ---------------------------------------------------------------------------------------------------------

    def annotate(self, time: float, seen: list[SeenObject], hits: np.ndarray | None) -> Annotations:
        """Ground truth at a time: objects that a camera or the LiDAR sees now or saw within `MEMORY`."""
        visible, whole = np.zeros(len(self.models)), np.zeros(len(self.models))
        for item in seen:
            visible[item.actor] += item.visible
            whole[item.actor] += item.whole
        pose = world_from_ego(self.world.ego, time)
        self.scene.pose_all(time, pose[:2, 3])
        poses = self.near_poses(pose[:2, 3])
        kept = []
        for actor in poses:
            if visible[actor] >= 4 or (hits is not None and hits[actor] > 0):
                self._last_seen[actor] = time
            if time - self._last_seen.get(actor, -np.inf) <= MEMORY:
                kept.append(actor)
        size = np.array([self.models[a].size for a in kept]).reshape(-1, 3)
        center = np.array(
            [[poses[a].x, poses[a].y, poses[a].z + self.models[a].size[2] / 2] for a in kept]
        ).reshape(-1, 3)
        boxes = Boxes3D(
            torch.from_numpy(center), torch.from_numpy(size).float(), torch.tensor([poses[a].yaw for a in kept], dtype=torch.float32),
            torch.from_numpy(np.array([velocity(self.world.actors[a], time) for a in kept]).reshape(-1, 3)).float(),
            torch.tensor([CLASS_NAMES.index(self.models[a].class_name) for a in kept], dtype=torch.int64),
            torch.ones(len(kept)), torch.tensor(kept, dtype=torch.int64),
        )  # fmt: skip
        points = np.full(len(kept), -1) if hits is None else hits[kept]
        share = np.where(whole[kept] > 0, visible[kept] / np.maximum(whole[kept], 1.0), 0.0).clip(0, 1)
        names = tuple(f"{self.options.domain}-{self.options.seed}-{self.world.actors[a].name}" for a in kept)
        return Annotations(
            self.stamp(time),
            boxes,
            CLASS_NAMES,
            names,
            torch.from_numpy(points).long(),
            torch.from_numpy(share).float(),
        )

    def labels_2d(self, camera: Calibrated, seen: list[SeenObject]) -> list[Annotation2D]:
        """2D labels of one image: visible boxes that are large enough and not mostly outside."""
        unit = (1600.0 / camera.width) ** 2
        out = []
        for item in seen:
            x0, y0, x1, y1 = item.box
            if (
                item.visible > 0
                and (x1 - x0) * (y1 - y0) * unit >= MIN_BOX_AREA
                and item.inside >= MIN_INSIDE
            ):
                name = f"{self.options.domain}-{self.options.seed}-{self.world.actors[item.actor].name}"
                out.append(Annotation2D(self.models[item.actor].class_name, 1.0, item.box, name))
        return out

    # ---- the recording --------------------------------------------------------------------------------------------------

    def write(
        self, path: Path, overwrite: bool = False, progress: Callable[[Iterator], Iterator] | None = None
    ) -> DriveSummary:
        """Record the drive. `progress` wraps the iterator over sets of images (tqdm-like). Raises BagError as BagWriter does."""
        options, rig = self.options, load_rig(self.layout.rig)
        summary = DriveSummary(path)
        self._last_seen, self._counted = {}, set()  # from the beginning, whatever was looked at before
        instants, sweeps = self.instants(), self.sweep_times()
        every = options.camera_rate / options.annotation_rate if options.annotation_rate > 0 else np.inf
        next_sweep, next_label = 0, 0.0
        with BagWriter(path, rig, overwrite) as bag:
            self._write_frames(bag, rig)
            self._write_motion(bag, instants, sweeps)
            numbered = iter(enumerate(instants))
            for number, time in progress(numbered) if progress else numbered:
                hits: np.ndarray | None = None
                while next_sweep < len(sweeps) and sweeps[next_sweep] <= time + 0.5 / options.camera_rate:
                    taken = self.scan(sweeps[next_sweep], next_sweep)
                    bag.points(
                        rig.lidar_topics[0],
                        self.stamp(sweeps[next_sweep]),
                        taken.points,
                        self.layout.lidar.name,
                    )
                    if hits is None or abs(sweeps[next_sweep] - time) < 1e-6:
                        hits = taken.hits
                    next_sweep, summary.sweeps = next_sweep + 1, summary.sweeps + 1
                label = number + 1e-6 >= next_label
                next_label += every if label else 0.0
                glimpses: list[Glimpse] = []
                for index, camera in enumerate(self.cameras):
                    exposed = time + camera.layout.exposure_ms / 1000.0
                    image, glimpse = self.photograph(camera, exposed, number * len(self.cameras) + index)
                    stamp, name = self.stamp(exposed), camera.layout.name
                    jpeg = simplejpeg.encode_jpeg(
                        np.ascontiguousarray(image), quality=options.jpeg_quality, colorsubsampling="420"
                    )
                    bag.camera_info(name, stamp, camera.calibration())
                    bag.image(name, stamp, jpeg)
                    summary.images += 1
                    glimpses.append(glimpse)
                if label:
                    self._write_labels(bag, time, glimpses, hits, summary)
        summary.distance = self.world.ego.distance(instants[-1]) - self.world.ego.distance(instants[0])
        return summary

    def _write_labels(
        self,
        bag: BagWriter,
        time: float,
        glimpses: list[Glimpse],
        hits: np.ndarray | None,
        summary: DriveSummary,
    ) -> None:
        visible = {actor for glimpse in glimpses for actor in glimpse.boxes}
        everything: list[SeenObject] = []
        for camera, glimpse in zip(self.cameras, glimpses, strict=True):
            seen = seen_objects(glimpse, self.models, visible)
            exposed = time + camera.layout.exposure_ms / 1000.0
            bag.annotations_2d(camera.layout.name, self.stamp(exposed), self.labels_2d(camera, seen))
            everything += seen
        annotations = self.annotate(time, everything, hits)
        bag.annotations(annotations)
        summary.keyframes += 1
        for label, actor in zip(
            annotations.boxes.label.tolist(), annotations.boxes.track_id.tolist(), strict=True
        ):
            summary.boxes[CLASS_NAMES[label]] += 1
            if actor not in self._counted:
                self._counted.add(actor)
                summary.instances[CLASS_NAMES[label]] += 1

    def _write_frames(self, bag: BagWriter, rig: Rig) -> None:
        mountings = {rig.camera(c.layout.name).frame: c.ego_from_camera for c in self.cameras}
        mountings[self.layout.lidar.name] = self.layout.lidar.ego_from_lidar()
        bag.static_transforms(self.stamp(0.0), mountings)

    def _write_motion(self, bag: BagWriter, instants: list[float], sweeps: list[float]) -> None:
        """tf and odometry at every sensor stamp and at 50 Hz."""
        times = {round(t + c.layout.exposure_ms / 1000.0, 6) for t in instants for c in self.cameras} | {
            round(t, 6) for t in (*instants, *sweeps)
        }
        end = max(times) + 0.1
        times |= {round(t, 6) for t in np.arange(0.0, end, 1 / _ODOMETRY_RATE)}
        for time in sorted(times):
            pose = world_from_ego(self.world.ego, time)
            bag.ego_pose(self.stamp(time), pose)
            bag.odometry(self.stamp(time), pose, *twist(self.world.ego, time))
