"""A recording, read through the same assembler as live topics."""

from __future__ import annotations

from collections.abc import Iterator

from dualview.scene.assembler import AssemblerSettings, ClosedFrame, DroppedFrame, FrameAssembler
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import AssemblerFeed
from dualview.scene.rig import Rig


def iterate_frames(
    bag: BagReader,
    rig: Rig,
    settings: AssemblerSettings | None = None,
    start_ns: int | None = None,
    stop_ns: int | None = None,
) -> Iterator[ClosedFrame | DroppedFrame]:
    """All frames of a recording in order, closed or dropped by the rules of `FrameAssembler`; images aren't decoded yet.

    start_ns, stop_ns: log times between which to read; static transforms are always read from the beginning. Raises BagError if the
    recording has none of the rig's image topics.
    """
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
