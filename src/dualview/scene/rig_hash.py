"""One short name for all of a rig that decides what is read from a recording."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

from dualview.scene.rig import Rig


def rig_hash(rig: Rig) -> str:
    """16 hexadecimal digits that change with a rig's cameras, frames, times, classes and topics, but not with its name nor with
    the topics of odometry and of 2D labels, of which neither frames nor 3D labels are made.
    """
    kept = replace(rig, name="", odometry_topic=None, annotations_2d_topic=None)
    text = json.dumps(asdict(kept), sort_keys=True, default=lambda array: array.tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
