"""A recording, read through the same assembler as live topics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dualview.scene.assembler import AssemblerSettings, ClosedFrame, DroppedFrame, FrameAssembler
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import AssemblerFeed
from dualview.scene.recorded import read_transforms
from dualview.scene.recorded_sweeps import CloudWalk, read_sweeps
from dualview.scene.rig import Rig
from dualview.scene.sweeps import LidarInput


def iterate_frames(
    bag: BagReader,
    rig: Rig,
    settings: AssemblerSettings | None = None,
    start_ns: int | None = None,
    stop_ns: int | None = None,
    lidar: LidarInput | None = None,
) -> Iterator[ClosedFrame | DroppedFrame]:
    """All frames of a recording in order, closed or dropped by the rules of `FrameAssembler`; images aren't decoded yet.

    start_ns, stop_ns: log times between which to read; static transforms are always read from the beginning. Raises BagError if the
    recording has none of the rig's image topics.

    lidar: give every closed frame its cloud of LiDAR points too; raises BagError if there is no LiDAR.
    """
    if lidar is not None:
        yield from _with_clouds(bag, rig, settings, start_ns, stop_ns, lidar)
        return
    bag.check_rig(rig)
    assembler = FrameAssembler(rig, settings)
    feed = AssemblerFeed(rig, assembler)
    if start_ns is not None:
        for message in bag.messages(topics=["/tf_static"], stop_ns=start_ns):
            feed.feed(message.topic, message.message)
    for message in bag.messages(topics=feed.topics, start_ns=start_ns, stop_ns=stop_ns):
        feed.feed(message.topic, message.message)
        yield from assembler.take_closed()
    assembler.flush()
    yield from assembler.take_closed()


def _with_clouds(
    bag: BagReader,
    rig: Rig,
    settings: AssemblerSettings | None,
    start_ns: int | None,
    stop_ns: int | None,
    lidar: LidarInput,
) -> Iterator[ClosedFrame | DroppedFrame]:
    """Closed frames with the cloud that belongs to their instant, whatever the order of the messages."""
    with BagReader(bag.path) as beside:
        clouds = CloudWalk(read_sweeps(beside, rig, read_transforms(bag)), lidar)
        for closed in iterate_frames(bag, rig, settings, start_ns, stop_ns):
            if isinstance(closed, ClosedFrame):
                closed = replace(closed, points=clouds.at(closed.stamp_ns, closed.world_from_ego))
            yield closed
