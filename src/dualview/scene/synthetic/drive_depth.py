"""Stand-in for a depth network on synthetic drives: the simulator's own depth, made worse in a stated way.

The world of a recording is built again from its seed (which its stamps and labels give away), checked against the recording's labels, and
its depth is drawn for each image. What comes out resembles what DPT gives in form only (relative inverse depth, soft edges, wrong by slowly
varying factors); how wrong it is was chosen, not measured, and results made with it say nothing about results with a real network.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from types import TracebackType

import cv2
import numpy as np

from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.depth_labels.depth_map import DepthMap
from dualview.scene.depth_labels.job import DepthRequest
from dualview.scene.depth_labels.store import DepthSource
from dualview.scene.labels_2d.recorded_images import camera_calibrations, image_stamps
from dualview.scene.rig import Rig
from dualview.scene.synthetic.domains import find_domain
from dualview.scene.synthetic.drive import EPOCH_NS, Drive
from dualview.scene.synthetic.options import DriveOptions
from dualview.scene.synthetic.rig_layouts import LAYOUTS
from dualview.scene.synthetic.sensors import calibrated_cameras

DEGRADATION = (
    "the simulator's depth, not a network's, as relative inverse depth: blurred over 1 % of the width, times a factor that varies over a "
    "quarter of the width by 8 %, plus 1 % noise, scale and shift drifting by their own in each camera over four seconds"
)
_DRIFT_NS = 4 * 10**9
_HOUR_NS = 3600 * 10**9
_TOLERANCE = 0.02  # m


class RenderedDepth:
    """The depth of one synthetic recording, drawn again. Owns an OpenGL context: use it with `with`.

    Raises BagError if the recording is no synthetic drive with labels, or if its world can't be built as it was.
    """

    def __init__(self, bag: BagReader, rig: Rig) -> None:
        self._options = drive_options(bag, rig)
        self._drive = Drive(self._options)
        self._cameras = {camera.layout.name: camera for camera in self._drive.cameras}
        try:
            self._check(bag, rig)
        except BaseException:
            self._drive.renderer.close()
            raise

    def __enter__(self) -> RenderedDepth:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drive.renderer.close()

    def source(self, width: int) -> DepthSource:
        """See `DepthEstimator`."""
        return DepthSource("rendered", "inverse", DEGRADATION, width)

    def __call__(self, requests: Sequence[DepthRequest]) -> list[DepthMap]:
        """See `DepthEstimator`."""
        maps = []
        for request in requests:
            camera, time_ns = zlib.crc32(request.camera.encode()), request.stamp_ns % _HOUR_NS
            scale, shift = drift(self._options.seed, camera, time_ns)
            depth = self.exact(request.camera, request.stamp_ns)
            maps.append(degraded(depth, [self._options.seed, time_ns, camera], scale, shift))
        return maps

    def exact(self, camera: str, stamp_ns: int) -> np.ndarray:
        """True depth [H, W] (m along the optical axis) of an image."""
        time = (stamp_ns - self._drive.stamp(0.0)) * 1e-9
        view = self._drive.view(self._cameras[camera], time)
        # A drive's own images come in order; these may not, so no actor may be left where it was last drawn.
        self._drive.scene.pose_all(time, view.world_from_camera[:2, 3], radius=np.inf)
        depth = self._drive.renderer.shoot(view, colour=False, depth=True).depth
        assert depth is not None
        return depth

    def _check(self, bag: BagReader, rig: Rig) -> None:
        """The world that was built is the recorded one: labelled objects stand where they stood."""
        actors = {actor.name: actor for actor in self._drive.world.actors}
        keyframes = bag.annotations(rig)
        compared = wrong = 0
        for keyframe in (keyframes[0], keyframes[-1]):
            time = (keyframe.stamp_ns - self._drive.stamp(0.0)) * 1e-9
            for name, place in zip(keyframe.instance_ids, keyframe.boxes.center.tolist(), strict=True):
                actor = actors.get(_actor_name(name))
                pose = None if actor is None else actor.pose(time)
                compared += 1
                wrong += pose is None or np.hypot(pose.x - place[0], pose.y - place[1]) > _TOLERANCE
        if compared == 0 or wrong > 0.05 * compared:
            raise BagError(
                f"the world of {bag.path} can't be built again ({wrong} of {compared} labelled objects stand elsewhere): it was "
                "made by another version, or was cut; make the drive again, or use a depth network"
            )


def drive_options(bag: BagReader, rig: Rig) -> DriveOptions:
    """The options that a synthetic drive was made with, as far as depth needs them. Raises BagError if it is none."""
    keyframes = bag.annotations(rig)
    identity = next((name for keyframe in keyframes for name in keyframe.instance_ids), "")
    found = re.match(r"([a-z-]+)-(\d+)-", identity)
    stamps = {
        c: [image.stamp_ns for image in images] for c, images in image_stamps(bag, rig).items() if images
    }
    longest = max(stamps.values(), key=len)
    seed = (longest[0] - EPOCH_NS) // _HOUR_NS
    if not found or int(found.group(2)) != seed or len(longest) < 2:
        raise BagError(
            f"{bag.path} is not a labelled synthetic drive of at least two instants: --model rendered works on what dualview synth wrote; "
            "use a depth network for other recordings"
        )
    rate = 1e9 * (len(longest) - 1) / (longest[-1] - longest[0])
    calibrations = camera_calibrations(bag, rig)
    layouts = [x.name for x in LAYOUTS.values() if set(stamps) <= {c.name for c in x.cameras}]
    for layout in layouts:
        calibration = calibrations[next(iter(stamps))]
        options = DriveOptions(
            seed=seed, seconds=round(len(longest) / rate, 3), rig=layout, domain=found.group(1), camera_rate=round(rate, 3),
            annotation_rate=0.0, image_size=(calibration.height, calibration.width), quality="draft", cameras=tuple(stamps),
        )  # fmt: skip
        if _same_cameras(options, calibrations):
            return options
    raise BagError(
        f"the cameras of {bag.path} are none of dualview synth's ({', '.join(LAYOUTS)}): use a depth network"
    )


def drift(seed: int, camera: int, time_ns: int) -> tuple[float, float]:
    """(scale, shift) of a camera's relative depth at a time: as a network's do, they change with the scene, so neighbours are alike."""
    before, share = divmod(time_ns, _DRIFT_NS)
    knots = [np.random.default_rng([seed, camera, before + i]).uniform((500.0, -0.02), (1500.0, 0.1)) for i in (0, 1)]
    scale, shift = knots[0] + (knots[1] - knots[0]) * (share / _DRIFT_NS)
    return float(scale), float(shift)


def degraded(depth: np.ndarray, seed: Sequence[int], scale: float = 1000.0, shift: float = 0.0) -> DepthMap:
    """Relative inverse depth made from true depth [H, W] (m), worse as `DEGRADATION` says."""
    random = np.random.default_rng(seed)
    height, width = depth.shape
    inverse = cv2.GaussianBlur((1.0 / np.maximum(depth, 0.25)).astype(np.float32), (0, 0), 0.01 * width)
    coarse = random.normal(0.0, 1.0, (max(round(4 * height / width), 2), 4)).astype(np.float32)
    factor = np.exp(0.08 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    noise = 1.0 + 0.01 * random.normal(0.0, 1.0, depth.shape)
    return DepthMap((scale * (inverse * factor * noise + shift)).astype(np.float32), "inverse")


def _same_cameras(options: DriveOptions, calibrations: dict[str, CameraCalibration]) -> bool:
    for camera in calibrated_cameras(options, find_domain(options.domain)):
        recorded = calibrations.get(camera.layout.name)
        if recorded is None or not np.allclose(
            recorded.intrinsics, camera.calibration().intrinsics, atol=0.01
        ):
            return False
    return True


def _actor_name(instance: str) -> str:
    """ "default-3-car 7" -> "car 7"."""
    found = re.match(r"[a-z-]+-\d+-(.*)$", instance)
    return found.group(1) if found else instance
