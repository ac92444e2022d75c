"""Argoverse 2's cuboids in the project's terms: the world frame, velocities, classes by Argoverse's own names."""

from __future__ import annotations

import numpy as np

from dualview.errors import BagError
from dualview.scene.class_maps import ARGOVERSE2_CLASSES, ARGOVERSE2_UNSCORED
from dualview.scene.convert.argoverse2_files import (
    QUATERNION,
    TRANSLATION,
    ArgoverseLog,
    read_feather,
    rigid_transforms,
    whole_numbers,
)
from dualview.scene.convert.labels import LabelledBoxes, track_velocities
from dualview.scene.convert.summary import ConversionSummary

_SIZE = ("length_m", "width_m", "height_m")
# the name in the data set's paper -> the name in its files
_OTHER_SPELLINGS = {"MOBILE_PEDESTRIAN_SIGN": "MOBILE_PEDESTRIAN_CROSSING_SIGN"}


def read_labels(log: ArgoverseLog, summary: ConversionSummary) -> dict[int, LabelledBoxes]:
    """Stamp (ns) -> the boxes labelled then, in the city frame; empty if the log has no labels (those of the test split).

    Argoverse gives boxes in the ego frame at the sweep's stamp. They are carried over by the whole pose, the ego vehicle's
    tilt included; of the heading only the turn about the vertical axis is kept. Velocities are differences of centres.
    Every category is kept, also one that Argoverse's lists don't have. Rows that can't be used are reported. Raises BagError
    if the file is there but damaged.
    """
    path = log.folder / "annotations.feather"
    if not path.is_file():
        summary.notes.append("the log has no annotations.feather: the recording has no labels")
        return {}
    columns = read_feather(
        path,
        ("timestamp_ns", "track_uuid", "category", *_SIZE, *QUATERNION, *TRANSLATION, "num_interior_pts"),
    )
    try:
        ego_from_box, usable = rigid_transforms(columns)
        sizes = np.stack([columns[name].astype(np.float64) for name in _SIZE], 1)
    except (ValueError, TypeError) as error:
        raise BagError(
            f"{path} holds boxes that are no numbers ({error}): download this log again"
        ) from error
    stamps = whole_numbers(path, columns, "timestamp_ns")
    points = whole_numbers(path, columns, "num_interior_pts")
    uuids = [str(value) for value in columns["track_uuid"]]
    categories = [_OTHER_SPELLINGS.get(str(value), str(value)) for value in columns["category"]]
    usable &= (stamps >= 0) & np.isfinite(sizes).all(1) & (sizes > 0).all(1)

    keyframes: dict[int, list[int]] = {}
    city_from_box = ego_from_box.copy()
    for stamp in np.unique(stamps[stamps >= 0]).tolist():
        pose = log.city_from_ego.pose_at(stamp)
        rows: list[int] = []
        seen: set[str] = set()
        for row in np.flatnonzero(stamps == stamp).tolist():
            if not usable[row]:
                continue
            if pose is None:
                summary.pass_over("boxes without an ego pose near their stamp", uuids[row])
            elif uuids[row] in seen:
                summary.pass_over("second boxes of an object at one stamp", uuids[row])
            else:
                city_from_box[row] = pose @ ego_from_box[row]
                seen.add(uuids[row])
                rows.append(row)
        if pose is not None:
            keyframes[stamp] = rows
    for row in np.flatnonzero(~usable).tolist():
        summary.pass_over("boxes whose stamp, place or size can't be used", uuids[row])

    names = (*ARGOVERSE2_CLASSES, *ARGOVERSE2_UNSCORED)
    strange = sorted(set(categories) - set(names))
    if strange:
        summary.notes.append(
            f"categories that Argoverse 2 doesn't list, kept as they are: {', '.join(strange)}"
        )
    instances = [[uuids[row] for row in rows] for rows in keyframes.values()]
    centers = [city_from_box[rows, :3, 3] for rows in keyframes.values()]
    velocities = track_velocities(list(keyframes), instances, centers)
    return {
        stamp: LabelledBoxes(
            classes=[categories[row] for row in rows],
            instances=instances[index],
            center=centers[index],
            size=sizes[rows],
            yaw=np.arctan2(city_from_box[rows, 1, 0], city_from_box[rows, 0, 0]),
            velocity=velocities[index],
            num_points=points[rows],
            visibility=np.full(len(rows), np.nan),
            attributes=[[] for _ in rows],
            class_names=(*names, *strange),
        )
        for index, (stamp, rows) in enumerate(keyframes.items())
    }
