"""The transform tree in time: what tf is to a node, for live and recorded data alike."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np

from dualview.errors import TransformError
from dualview.geometry.rigid import interpolate_rigid

_MANY = 200  # frames, from which on room is made for new ones
_NAMED = 30  # frames in a message
_SILENT_NS = 60_000_000_000


@dataclass
class _Edge:
    """Samples of parent_from_child, sorted by stamp; `static` edges hold one sample that is true at all times."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    samples: dict[int, np.ndarray] = field(default_factory=dict)


class TransformBuffer:
    """Keeps the last seconds of every transform and interpolates between samples (linear and slerp).

    It never extrapolates, and it doesn't interpolate over holes longer than `max_hole_s`: a pose that isn't known is an error
    that names the frames. An edge whose stamps go back by more than a second starts anew, as after a bag loops, and frames that
    nobody has moved for a minute make room for new ones. history_s None: everything is kept, in whatever order it comes.
    """

    def __init__(self, history_s: float | None = 10.0, max_hole_s: float = 1.0) -> None:
        self._history_ns = None if history_s is None else round(history_s * 1e9)
        self._max_hole_ns = round(max_hole_s * 1e9)
        self._edges: dict[str, _Edge] = {}

    def add(self, parent: str, child: str, stamp_ns: int, parent_from_child: np.ndarray, static: bool = False) -> None:
        """Learn `parent_from_child` [4, 4] (float64, m) at `stamp_ns`."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            self._make_room()
            edge = self._edges[child] = _Edge(parent, static)
        if static:
            edge.stamps, edge.samples = [0], {0: parent_from_child}
            return
        history = self._history_ns
        if history is not None and edge.stamps and stamp_ns < edge.stamps[-1] - 1_000_000_000:
            edge.stamps, edge.samples = [], {}
        if stamp_ns not in edge.samples:
            insort(edge.stamps, stamp_ns)
        edge.samples[stamp_ns] = parent_from_child
        if history is None:
            return
        too_old = bisect_left(edge.stamps, edge.stamps[-1] - history)
        for old in edge.stamps[:too_old]:
            del edge.samples[old]
        del edge.stamps[:too_old]

    def _make_room(self) -> None:
        """Forget moving frames that fell silent and carry no other: systems that name one for each object never stop making new ones."""
        if self._history_ns is None or len(self._edges) < _MANY:
            return
        newest = sorted(edge.stamps[-1] for edge in self._edges.values() if not edge.static and edge.stamps)
        if not newest:
            return
        oldest = newest[len(newest) // 2] - max(self._history_ns, _SILENT_NS)  # by most clocks, not by one that may be wrong
        parents = {edge.parent for edge in self._edges.values()}
        for child, edge in list(self._edges.items()):
            if not edge.static and child not in parents and not (edge.stamps and edge.stamps[-1] >= oldest):
                del self._edges[child]

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """`target_from_source` [4, 4] (float64) at `stamp_ns`.

        Raises TransformError, with the frames and the reason, if it isn't known (it may still become known).
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        up_from_target = self._ancestors(target)
        up_from_source = self._ancestors(source)
        common = next((frame for frame in up_from_source if frame in set(up_from_target)), None)
        if common is None:
            missing = next((f for f in (target, source) if f not in self._edges and not self._is_parent(f)), None)
            why = f"frame '{missing}' is not in the tree" if missing else "the two frames are in separate trees"
            raise TransformError(f"no transform from '{source}' to '{target}': {why}; frames known: {self._known()}")
        common_from_source = self._chain(up_from_source[: up_from_source.index(common)], stamp_ns)
        common_from_target = self._chain(up_from_target[: up_from_target.index(common)], stamp_ns)
        target_from_common = np.eye(4)
        target_from_common[:3, :3] = common_from_target[:3, :3].T
        target_from_common[:3, 3] = -common_from_target[:3, :3].T @ common_from_target[:3, 3]
        return target_from_common @ common_from_source

    def forget_after(self, stamp_ns: int) -> None:
        """Drop dynamic samples newer than `stamp_ns`: after a jump back in time they belong to another past."""
        for edge in self._edges.values():
            if not edge.static:
                keep = bisect_left(edge.stamps, stamp_ns + 1)
                for late in edge.stamps[keep:]:
                    del edge.samples[late]
                del edge.stamps[keep:]

    def _ancestors(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._edges:
            parent = self._edges[chain[-1]].parent
            if parent in chain:
                raise TransformError(f"the transform tree has a loop: {' -> '.join([*chain, parent])}")
            chain.append(parent)
        return chain

    def _chain(self, frames: list[str], stamp_ns: int) -> np.ndarray:
        """Product of the edges above each of `frames` (nearest first): top_from_first."""
        product = np.eye(4)
        for frame in frames:
            product = self._sample(frame, stamp_ns) @ product
        return product

    def _sample(self, child: str, stamp_ns: int) -> np.ndarray:
        edge = self._edges[child]
        if edge.static:
            return edge.samples[0]
        name = f"transform '{edge.parent}' -> '{child}'"
        position = bisect_left(edge.stamps, stamp_ns)
        if position == len(edge.stamps):
            newest = f"newest is {(stamp_ns - edge.stamps[-1]) / 1e6:.0f} ms older" if edge.stamps else "none received"
            raise TransformError(f"{name} is not known yet at {stamp_ns / 1e9:.3f} s ({newest})")
        after = edge.stamps[position]
        if after == stamp_ns:
            return edge.samples[after]
        if position == 0:
            raise TransformError(
                f"{name} begins {(after - stamp_ns) / 1e6:.0f} ms after {stamp_ns / 1e9:.3f} s: nothing to interpolate from"
            )
        before = edge.stamps[position - 1]
        if after - before > self._max_hole_ns:
            raise TransformError(
                f"{name} has a hole of {(after - before) / 1e9:.2f} s around {stamp_ns / 1e9:.3f} s; "
                f"at most {self._max_hole_ns / 1e9:g} s is interpolated"
            )
        return interpolate_rigid(edge.samples[before], edge.samples[after], (stamp_ns - before) / (after - before))

    def _is_parent(self, frame: str) -> bool:
        return any(edge.parent == frame for edge in self._edges.values())

    def _known(self) -> str:
        frames = sorted(set(self._edges) | {edge.parent for edge in self._edges.values()})
        more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
        return ", ".join(frames[:_NAMED]) + more if frames else "none (is /tf published, and in this namespace?)"
