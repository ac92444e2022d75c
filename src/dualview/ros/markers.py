"""`~/markers`: boxes, headings, labels and trails for RViz, with a DELETE for whatever vanished."""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections import deque
from dataclasses import dataclass, field

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Vector3
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from dualview.ros.conversions import TrackSet, box_poses, header_message

NAMESPACES = ("boxes", "headings", "labels", "trails")
_KEEP_TRAIL_NS = 2_000_000_000  # of a track that isn't seen
_COLOURS = {
    "car": (0.20, 0.60, 1.00), "truck": (0.55, 0.35, 0.95), "bus": (0.95, 0.45, 0.85), "trailer": (0.70, 0.55, 0.95),
    "construction_vehicle": (0.95, 0.65, 0.20), "pedestrian": (1.00, 0.30, 0.30), "motorcycle": (0.20, 0.85, 0.60),
    "bicycle": (0.55, 0.90, 0.25), "traffic_cone": (1.00, 0.55, 0.10), "barrier": (0.70, 0.70, 0.70),
}  # fmt: skip


def class_colour(name: str) -> tuple[float, float, float]:
    """RGB in 0..1, the same for a class name everywhere and always."""
    if name in _COLOURS:
        return _COLOURS[name]
    hue = hashlib.sha256(name.encode()).digest()[0] / 256
    return colorsys.hsv_to_rgb(hue, 0.7, 0.95)


@dataclass
class _Trail:
    points: deque[Point] = field(default_factory=deque)
    stamp_ns: int = 0


class MarkerMaker:
    """Makes the marker array of each frame and remembers what RViz shows, to delete it when it is gone.

    Trails are kept in the world frame whatever frame the boxes are in. Bounded by the number of tracks and the trail's length.
    """

    def __init__(self, trail_length: int = 20, lifetime: float = 1.0) -> None:
        self.trail_length, self.lifetime = trail_length, lifetime
        self._trails: dict[int, _Trail] = {}
        self._shown: set[tuple[str, int]] = set()

    def follow(self, stamp_ns: int, track_ids: list[int], world_centers: Tensor) -> None:
        """Lengthen the trails by the centres [M, 3] (m, world); call it for every frame, shown or not."""
        for track_id, (x, y, z) in zip(track_ids, world_centers.tolist(), strict=True):
            trail = self._trails.setdefault(track_id, _Trail())
            trail.points.append(Point(x=x, y=y, z=z))
            trail.stamp_ns = stamp_ns
            while len(trail.points) > max(self.trail_length, 1):
                trail.points.popleft()
        for track_id in [i for i, t in self._trails.items() if abs(stamp_ns - t.stamp_ns) > _KEEP_TRAIL_NS]:
            del self._trails[track_id]

    def make(self, tracks: TrackSet, world_frame: str) -> MarkerArray:
        """The markers of one frame."""
        header = header_message(tracks.stamp_ns, tracks.frame_id)
        boxes = tracks.boxes
        lifetime = Duration(sec=int(self.lifetime), nanosec=round(self.lifetime % 1 * 1e9))
        speeds = boxes.velocity[:, :2].norm(dim=1).tolist()
        rows = zip(boxes.track_id.tolist(), boxes.label.tolist(), box_poses(boxes), boxes.size.tolist(), speeds,
                   tracks.existence, strict=True)  # fmt: skip
        markers: list[Marker] = []
        for track_id, label, pose, size, speed, existence in rows:
            number = track_id % (1 << 31)
            red, green, blue = class_colour(tracks.class_names[label])
            colour = ColorRGBA(r=red, g=green, b=blue, a=0.25 + 0.5 * existence)
            bright = ColorRGBA(r=red, g=green, b=blue, a=1.0)

            def marker(namespace: str, kind: int, head: Header = header, number: int = number) -> Marker:
                return Marker(
                    header=head, ns=namespace, id=number, type=kind, action=Marker.ADD, lifetime=lifetime
                )

            box = marker("boxes", Marker.CUBE)
            box.pose, box.scale, box.color = pose, Vector3(x=size[0], y=size[1], z=size[2]), colour
            heading = marker("headings", Marker.ARROW)
            heading.pose, heading.color = pose, bright
            heading.scale = Vector3(x=max(size[0] * 0.75, 0.5), y=0.15, z=0.15)
            text = marker("labels", Marker.TEXT_VIEW_FACING)
            text.pose = Pose(orientation=pose.orientation)
            text.pose.position = Point(
                x=pose.position.x, y=pose.position.y, z=pose.position.z + size[2] / 2 + 0.5
            )
            text.scale.z, text.color = 0.7, ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
            text.text = f"{track_id} {tracks.class_names[label]}"
            if math.isfinite(speed):
                text.text += f" {speed:.1f} m/s"
            markers += [box, heading, text]
            trail = self._trails.get(track_id)
            if self.trail_length and trail is not None and len(trail.points) > 1:
                line = marker("trails", Marker.LINE_STRIP, Header(stamp=header.stamp, frame_id=world_frame))
                line.pose.orientation.w = 1.0
                line.scale.x, line.color = 0.12, bright
                line.points = list(trail.points)
                markers.append(line)
        present = {(m.ns, m.id) for m in markers}
        gone = [
            Marker(header=header, ns=ns, id=number, action=Marker.DELETE)
            for ns, number in sorted(self._shown - present)
        ]
        self._shown = present
        return MarkerArray(markers=gone + markers)

    def clear(self, stamp_ns: int, frame_id: str) -> MarkerArray:
        """A message that removes everything, and a fresh start."""
        self._trails.clear()
        self._shown.clear()
        return MarkerArray(
            markers=[Marker(header=header_message(stamp_ns, frame_id), action=Marker.DELETEALL)]
        )
