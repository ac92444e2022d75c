"""What synthetic (or any labelled) drives hold: the table of docs/synthetic_drives.md.

    python tools/drive_statistics.py DRIVE.mcap…

Counts objects within 50 m that have a visible pixel or a LiDAR return, at every annotated instant.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from dualview.evaluation.protocol import load_protocol
from dualview.evaluation.run import fitting_rig, read_labels

RANGE, MOVING = 50.0, 0.5  # m, m/s


def main(drives: list[str]) -> int:
    if not drives:
        print(__doc__, file=sys.stderr)
        return 2
    protocol = load_protocol("nuscenes")
    seen, moving, instants = Counter[str](), Counter[str](), 0
    shown = defaultdict[str, set[str]](set)
    visibility: list[float] = []
    for path in drives:
        labels = read_labels(path, fitting_rig(path, None), protocol)
        for instant, ego in zip(labels.annotations, labels.ego_positions, strict=True):
            instants += 1
            boxes = instant.boxes
            distance = np.linalg.norm(boxes.center[:, :2].numpy() - ego[:2], axis=1)
            for index, name in enumerate(instant.class_names[label] for label in boxes.label.tolist()):
                found = instant.num_lidar_points[index] > 0 or instant.visibility[index] > 0
                if distance[index] < RANGE and found:
                    seen[name] += 1
                    shown[name].add(path)
                    moving[name] += bool(boxes.velocity[index, :2].norm() > MOVING)
                    visibility.append(float(instant.visibility[index]))
    if not instants:
        print("none of the drives has a label whose place is known")
        return 1
    print("| class | seen per instant | of these move | drives that show one |\n|---|---|---|---|")
    for name, count in seen.most_common():
        drove = 100 * len(shown[name]) / len(drives)
        print(f"| {name} | {count / instants:.1f} | {100 * moving[name] / count:.0f} % | {drove:.0f} % |")
    hidden = sum(v < 0.4 for v in visibility) / max(len(visibility), 1)
    print(f"| **all** | **{len(visibility) / instants:.0f}** | | |\n\n{len(drives)} drives, {instants} instants; "
          f"{100 * hidden:.0f} % of the seen are hidden by more than 60 %")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
