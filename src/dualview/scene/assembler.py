"""Which images make one frame, and where the vehicle was: the same class for live topics and for recordings.

All decisions follow sensor stamps. "Sensor time" is the newest image stamp seen; waiting is measured in it, so a recording gives the
same frames however fast or slow it is read. The only things that the wall clock may do are in the node: call `flush` when nothing
has arrived for a while.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from dualview.errors import TransformError
from dualview.scene.calibration import CameraCalibration
from dualview.scene.images import EncodedImage
from dualview.scene.rig import CameraSpec, Rig
from dualview.scene.transform_buffer import TransformBuffer


@dataclass(frozen=True)
class AssemblerSettings:
    """Times in seconds of sensor time.

    max_skew: how far an image may be from the anchor's stamp. max_wait: how long a frame waits for late images and poses.
    camera_timeout: a camera silent for longer isn't waited for. max_gap: a longer pause, or a step back, resets the state.
    min_cameras: fewer usable images than this and nothing is published. min_interval: anchors that follow faster are left
    out (0 = every one), so that a fast camera can be run at the rate that the detector was trained for.
    """

    max_skew: float = 0.060
    max_wait: float = 0.050
    camera_timeout: float = 0.5
    max_gap: float = 2.0
    min_cameras: int = 1
    min_interval: float = 0.0

    @staticmethod
    def for_rig(rig: Rig, **overrides: float | int | None) -> AssemblerSettings:
        """The defaults, changed by what the rig file says, changed by those of `overrides` that aren't None."""
        given = {name: value for name, value in overrides.items() if value is not None}
        return AssemblerSettings(**{**rig.assembler, **given})  # type: ignore[arg-type]


@dataclass(frozen=True)
class CameraInput:
    """One camera's part of a closed frame. `image` is None if it is masked; `world_from_ego` is at the image's own stamp."""

    name: str
    image: EncodedImage | None
    calibration: CameraCalibration | None
    ego_from_camera: np.ndarray
    world_from_ego: np.ndarray


@dataclass(frozen=True)
class ClosedFrame:
    """A frame that is ready to be decoded. `reset` says why the detector must forget the past, None if it needn't."""

    stamp_ns: int
    cameras: tuple[CameraInput, ...]
    world_from_ego: np.ndarray
    problems: dict[str, str]  # camera name -> why it is masked
    reset: str | None = None
    points: np.ndarray | None = None  # LiDAR cloud, for detectors that take one (see sweeps.py)
    label_map: np.ndarray | None = None  # see SurroundFrame


@dataclass(frozen=True)
class DroppedFrame:
    """A frame that couldn't be made; `kind` is one of few words for counting, `detail` a sentence."""

    stamp_ns: int
    kind: str
    detail: str


@dataclass
class _CameraBuffer:
    """What is known of one camera: its latest images and their rhythm."""

    spec: CameraSpec
    images: deque[EncodedImage] = field(default_factory=deque)
    last_stamp: int | None = None
    period: int | None = None
    calibration: CameraCalibration | None = None
    calibration_problem: str | None = None


@dataclass(frozen=True)
class _OpenFrame:
    stamp_ns: int
    anchor: str


class FrameAssembler:
    """Collects images, calibrations and transforms, and closes frames by the rules of ARCHITECTURE.md.

    Feed it with `add_*` in order of arrival and take what is ready with `take_closed`. Nothing in it grows with time.
    """

    def __init__(self, rig: Rig, settings: AssemblerSettings | None = None) -> None:
        self.rig = rig
        self.settings = settings or AssemblerSettings.for_rig(rig)
        self.transforms = TransformBuffer()
        self.counts: Counter[str] = Counter()
        self._cameras = {spec.name: _CameraBuffer(spec) for spec in rig.cameras}
        for camera in self._cameras.values():
            camera.calibration = camera.spec.calibration
        first = rig.anchor or rig.cameras[0].name
        self._anchor_order = [first, *(name for name in self._cameras if name != first)]
        self._open: deque[_OpenFrame] = deque()
        self._closed: list[ClosedFrame | DroppedFrame] = []
        self._now: int | None = None  # sensor time
        self._began: int | None = None
        self._last_anchor: _OpenFrame | None = None
        self._suspect: tuple[str, EncodedImage] | None = None
        self._alone_since = 0  # first stamp of the suspects in a row that are of one camera
        self._past: int | None = None  # sensor time before the last step back
        self._reset_reason: str | None = None

    # ---- what goes in -------------------------------------------------------------------------------------------------

    def add_calibration(self, camera: str, calibration: CameraCalibration) -> None:
        """Learn a camera's calibration; each frame uses the newest."""
        self._cameras[camera].calibration = calibration
        self._cameras[camera].calibration_problem = None
        self._close_ready()

    def reject_calibration(self, camera: str, reason: str) -> None:
        """The camera's newest calibration is unusable: it is masked, with this reason, until a good one comes."""
        self._cameras[camera].calibration = None
        self._cameras[camera].calibration_problem = reason
        self._close_ready()

    def add_transform(
        self, parent: str, child: str, stamp_ns: int, parent_from_child: np.ndarray, static: bool = False
    ) -> None:
        """Learn a transform [4, 4] of the tree, as tf publishes it."""
        self.transforms.add(parent, child, stamp_ns, parent_from_child, static)
        self._close_ready()

    def add_image(self, camera: str, image: EncodedImage) -> None:
        """Take an image. Stamps of one camera must rise; see the settings for what happens when they don't."""
        buffer = self._cameras[camera]
        if self._now is not None and self._is_stale(image.stamp_ns):
            self.counts["image from before a time jump"] += 1
            return
        ahead = 0 if self._now is None else image.stamp_ns - self._now
        back = -ahead - self._ns(self.settings.max_gap) if buffer.last_stamp is None else buffer.last_stamp - image.stamp_ns
        if buffer.last_stamp is not None and 0 <= back <= self._ns(self.settings.max_skew):
            self.counts["image out of order"] += 1
        elif back > 0:
            by = -ahead if buffer.last_stamp is None else back
            self._leap(camera, image, f"time went back by {by / 1e9:.2f} s ({camera})", back=True)
        elif ahead > self._ns(self.settings.max_gap):
            self._leap(camera, image, f"time jumped ahead by {ahead / 1e9:.2f} s", back=False)
        else:
            self._suspect = None  # time goes on where it was
            self._accept(camera, image)

    def flush(self) -> None:
        """Close or drop what is open with what is there: at the end of a recording, or when all cameras fell silent."""
        while self._open:
            self._close_first(waited=True)

    def discard(self) -> None:
        """Forget the frames that are open or closed and weren't taken: what comes next is of another time."""
        self._open.clear()
        self._closed = []

    # ---- what comes out -----------------------------------------------------------------------------------------------

    def take_closed(self) -> list[ClosedFrame | DroppedFrame]:
        """Frames closed or dropped since the last call, oldest first."""
        closed, self._closed = self._closed, []
        return closed

    def silent_cameras(self) -> dict[str, str]:
        """Cameras that aren't waited for, each with a sentence for diagnostics."""
        return {name: f"silent for {self._silence(c) / 1e9:.1f} s" if c.last_stamp is not None else "no image received yet"
                for name, c in self._cameras.items() if not self._is_alive(c)}  # fmt: skip

    # ---- time ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _ns(seconds: float) -> int:
        return round(seconds * 1e9)

    def _silence(self, camera: _CameraBuffer) -> int:
        since = camera.last_stamp if camera.last_stamp is not None else self._began
        return 0 if self._now is None or since is None else self._now - since

    def _is_alive(self, camera: _CameraBuffer) -> bool:
        return self._silence(camera) <= self._ns(self.settings.camera_timeout)

    def _is_stale(self, stamp_ns: int) -> bool:
        """An image sent before the last step back in time that arrives only now."""
        if self._past is None or self._now is None or self._began is None:
            return False
        if self._now - self._began > self._ns(self.settings.camera_timeout):
            self._past = None
            return False
        ahead = stamp_ns - self._now > self._ns(self.settings.max_gap)
        return ahead and abs(stamp_ns - self._past) <= self._ns(self.settings.max_gap)

    def _leap(self, camera: str, image: EncodedImage, reason: str, *, back: bool) -> None:
        """A stamp from another time. Wrong ones must not move sensor time, be they one or all of a camera whose clock is wrong:
        a leap counts when the very next image agrees, of another camera, or of the same if it is alone for `camera_timeout`.
        """
        suspect, self._suspect = self._suspect, (camera, image)
        agrees = suspect is not None and abs(image.stamp_ns - suspect[1].stamp_ns) <= self._ns(self.settings.max_gap)
        if not agrees or suspect is None or suspect[0] != camera:
            self._alone_since = image.stamp_ns
        alone = len(self._cameras) == 1 or image.stamp_ns - self._alone_since >= self._ns(self.settings.camera_timeout)
        if suspect is None or not agrees or (suspect[0] == camera and not alone):
            self.counts["image from another time"] += 1
            return
        self.counts["image from another time"] -= 1  # it was right
        first, second = sorted((suspect, (camera, image)), key=lambda pair: pair[1].stamp_ns)
        self._restart(reason, first[1].stamp_ns if back else None)
        if first[0] != second[0] or first is suspect:  # else the camera's stamps don't rise
            self._accept(*first)
        self._accept(*second)

    def _restart(self, reason: str, back_to: int | None) -> None:
        """Forget all images: sensor time goes on from somewhere else."""
        while self._open:
            lost = self._open.popleft()
            self._drop(lost.stamp_ns, "time jump", f"still open when {reason}")
        for camera in self._cameras.values():
            camera.images.clear()
            camera.last_stamp = camera.period = None
        if back_to is not None:
            self._past = self._now
            self.transforms.forget_after(back_to + self._ns(self.settings.max_gap))
        self._now = self._began = self._last_anchor = self._suspect = None
        self._reset_reason = reason

    # ---- frames -------------------------------------------------------------------------------------------------------

    def _accept(self, camera: str, image: EncodedImage) -> None:
        buffer = self._cameras[camera]
        if buffer.last_stamp is not None:
            buffer.period = image.stamp_ns - buffer.last_stamp
        buffer.last_stamp = image.stamp_ns
        buffer.images.append(image)
        self._now = image.stamp_ns if self._now is None else max(self._now, image.stamp_ns)
        self._began = image.stamp_ns if self._began is None else self._began
        if camera == self._current_anchor():
            self._open_frame(_OpenFrame(image.stamp_ns, camera))
        self._close_ready()
        horizon = self._now - self._ns(self.settings.max_skew + self.settings.max_wait)
        if self._open:
            horizon = min(horizon, self._open[0].stamp_ns - self._ns(self.settings.max_skew))
        for other in self._cameras.values():
            while other.images and other.images[0].stamp_ns < horizon:
                other.images.popleft()

    def _current_anchor(self) -> str | None:
        return next((name for name in self._anchor_order if self._is_alive(self._cameras[name])), None)

    def _open_frame(self, frame: _OpenFrame) -> None:
        last = self._last_anchor
        if last is not None:
            since = frame.stamp_ns - last.stamp_ns
            nearest = self.settings.min_interval
            if frame.anchor != last.anchor:  # a take-over must not show the same instant twice
                nearest = max(nearest, self.settings.max_skew)
            if since < self._ns(nearest) or since <= 0:
                return
            if since > self._ns(self.settings.max_gap):
                self._reset_reason = f"no frame for {since / 1e9:.2f} s"
        self._last_anchor = frame
        self._open.append(frame)

    def _close_ready(self) -> None:
        while self._open:
            waited = self._now is not None and self._now - self._open[0].stamp_ns >= self._ns(self.settings.max_wait)
            settled = all(self._is_settled(camera, self._open[0]) for camera in self._cameras.values())
            if not ((settled or waited) and self._close_first(waited)):
                return

    def _is_settled(self, camera: _CameraBuffer, frame: _OpenFrame) -> bool:
        """True if no image that may still come would fit `frame` better than what is there, or if none is expected."""
        if not self._is_alive(camera):
            return True
        nearest = self._nearest(camera, frame.stamp_ns)
        unknown = camera.calibration is None and camera.calibration_problem is None
        if nearest is not None and unknown and camera.spec.camera_info_topic is not None:
            return False  # live, the first camera_info may come after the image of the same stamp
        if camera.last_stamp is not None and camera.last_stamp >= frame.stamp_ns:
            return True
        if nearest is None:
            return False
        # The next image is due one period after the last: if that is farther from the anchor, the choice is made.
        return camera.period is not None and 2 * (frame.stamp_ns - nearest.stamp_ns) <= camera.period

    def _nearest(self, camera: _CameraBuffer, stamp_ns: int) -> EncodedImage | None:
        inside = [i for i in camera.images if abs(i.stamp_ns - stamp_ns) <= self._ns(self.settings.max_skew)]
        return min(inside, key=lambda i: abs(i.stamp_ns - stamp_ns)) if inside else None

    def _close_first(self, waited: bool) -> bool:
        """Close or drop the oldest open frame; False if it should rather wait for a pose."""
        frame = self._open[0]
        try:
            anchor_pose = self.transforms.lookup(self.rig.world_frame, self.rig.ego_frame, frame.stamp_ns)
            problems: dict[str, str] = {}
            cameras = [self._camera_input(c, frame, anchor_pose, problems, waited) for c in self._cameras.values()]
        except TransformError as error:
            if not waited:  # it may still come
                return False
            self._open.popleft()
            self._drop(frame.stamp_ns, "no transform", str(error))
            return True
        self._open.popleft()
        usable = sum(camera.image is not None for camera in cameras)
        if usable < max(self.settings.min_cameras, 1):
            named = "; ".join(f"{name}: {why}" for name, why in problems.items())
            self._drop(frame.stamp_ns, "too few cameras", f"{usable} usable of {self.settings.min_cameras} needed ({named})")
            return True
        reset, self._reset_reason = self._reset_reason, None
        self._closed.append(ClosedFrame(frame.stamp_ns, tuple(cameras), anchor_pose, problems, reset))
        self.counts["closed"] += 1
        return True

    def _camera_input(
        self, camera: _CameraBuffer, frame: _OpenFrame, anchor_pose: np.ndarray, problems: dict[str, str], waited: bool
    ) -> CameraInput:
        """The camera's best image with its poses, or a masked slot and a problem.

        Raises TransformError if the ego pose at the image's stamp is missing; a camera whose own mounting isn't in the tree is
        masked instead, since the other cameras can go on without it.
        """
        name, spec = camera.spec.name, camera.spec
        masked = CameraInput(name, None, None, np.eye(4), anchor_pose)
        image = self._nearest(camera, frame.stamp_ns)
        if image is None:
            problems[name] = "no image near the anchor" if self._is_alive(camera) else self.silent_cameras()[name]
            return masked
        if camera.calibration is None:
            problems[name] = camera.calibration_problem or "no camera_info received yet, and none in the rig file"
            return masked
        pose = self.transforms.lookup(self.rig.world_frame, self.rig.ego_frame, image.stamp_ns)
        mounting = spec.ego_from_camera
        if mounting is None:
            try:
                mounting = self.transforms.lookup(self.rig.ego_frame, spec.optical_frame or image.frame_id, image.stamp_ns)
            except TransformError as error:
                if not waited:
                    raise
                problems[name] = str(error)
                return masked
        return CameraInput(name, image, camera.calibration, mounting, pose)

    def _drop(self, stamp_ns: int, kind: str, detail: str) -> None:
        self.counts[kind] += 1
        self._closed.append(DroppedFrame(stamp_ns, kind, detail))

