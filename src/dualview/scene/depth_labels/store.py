"""The depth maps of a recording: a folder beside it, <recording>.depth/<model>/, with one file an image.

`labels.json` says what made the maps; <camera>/<stamp>.png are the maps (see `depth_map`); `metres-<option>.json` turn relative ones into
metres, one line of numbers an image. Every file appears complete, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualview.errors import BagError, ConfigError
from dualview.scene.depth_labels.depth_map import DepthMap, read_depth, write_depth
from dualview.scene.depth_labels.metric import InverseFit

FORMAT = 1


@dataclass(frozen=True)
class DepthSource:
    """What made the maps. model: as the user named it; kind: "inverse" or "metric"; description: a sentence that says what the depth is;
    width: columns of the stored maps."""

    model: str
    kind: str
    description: str
    width: int


def depth_folder(recording: str | Path, model: str, root: Path | None = None) -> Path:
    """Where the maps of a recording by a model are: beside the recording, or in `root`."""
    path = Path(recording).expanduser().resolve()  # training follows links too
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", model.strip("/").split("/")[-1]).strip("-.").lower() or "model"
    return (root or path.parent) / f"{path.name}.depth" / slug


class DepthStore:
    """Depth maps on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fits: dict[str, dict[str, dict[int, InverseFit]]] = {}

    @staticmethod
    def create(folder: Path, source: DepthSource) -> DepthStore:
        """A store to write to; one that is there already goes on. Raises ConfigError if that was made in another way."""
        path = folder / "labels.json"
        wanted = {"format": FORMAT, **asdict(source)}
        if path.exists():
            found = DepthStore(folder).about()
            if found != wanted:
                differing = sorted(k for k in wanted if found.get(k) != wanted[k])
                raise ConfigError(
                    f"{folder} holds depth that was made with another {', '.join(differing)}: delete that folder, or give --out"
                )
        else:
            _write_json(path, wanted)
        return DepthStore(folder)

    def about(self) -> dict[str, Any]:
        """What made the maps. Raises BagError if there are none."""
        try:
            return json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise BagError(
                f"there is no depth at {self.folder}: run dualview label-depth on the recording"
            ) from error
        except ValueError as error:
            raise BagError(
                f"{self.folder}/labels.json is damaged ({error}): delete that folder and start again"
            ) from error

    def path(self, camera: str, stamp_ns: int) -> Path:
        """The file of an image's map."""
        return self.folder / camera / f"{stamp_ns}.png"

    def has(self, camera: str, stamp_ns: int) -> bool:
        """Whether this image's map is there."""
        return self.path(camera, stamp_ns).exists()

    def write(self, camera: str, stamp_ns: int, depth: DepthMap) -> None:
        """Store an image's map."""
        write_depth(depth, self.path(camera, stamp_ns))

    def read(self, camera: str, stamp_ns: int) -> DepthMap | None:
        """An image's map as stored, None if there is none. Raises ImageError if the file is damaged."""
        return read_depth(self.path(camera, stamp_ns)) if self.has(camera, stamp_ns) else None

    # ---- metres

    def write_fits(self, option: str, fits: Mapping[str, Mapping[int, InverseFit]]) -> None:
        """Keep what turns relative maps into metres, camera -> stamp -> fit, beside what is there of other images: recordings of the same
        name share a folder.
        """
        path = self.folder / f"metres-{option}.json"
        kept = self.fits(option) if path.is_file() else {}
        together = {camera: {**kept.get(camera, {}), **fits.get(camera, {})} for camera in {**kept, **fits}}
        _write_json(path, {camera: {str(s): asdict(fit) for s, fit in images.items()} for camera, images in together.items()})
        self._fits.pop(option, None)

    def fits(self, option: str) -> dict[str, dict[int, InverseFit]]:
        """What `write_fits` kept. Raises BagError if there is nothing for this option."""
        if option not in self._fits:
            path = self.folder / f"metres-{option}.json"
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise BagError(
                    f"the relative depth in {self.folder} has no metres by '{option}' ({error}): run dualview label-depth "
                    f"with --metric {option}"
                ) from error
            self._fits[option] = {
                c: {int(s): InverseFit(**fit) for s, fit in images.items()} for c, images in content.items()
            }
        return self._fits[option]

    def metres(self, camera: str, stamp_ns: int, option: str) -> DepthMap | None:
        """An image's depth in m; None if there is no map, or no fit for a relative one.

        option: "lidar", "boxes" or "ground", of no matter for metric maps.
        """
        depth = self.read(camera, stamp_ns)
        if depth is None or depth.kind == "metric":
            return depth
        fit = self.fits(option).get(camera, {}).get(stamp_ns)
        return None if fit is None else DepthMap(fit.metres(depth.values), "metric")

    def box_depth(
        self, camera: str, stamp_ns: int, rectangles: np.ndarray, image_size: tuple[int, int], option: str
    ) -> np.ndarray:
        """Depth [n] (m, NaN = not known) of rectangles [n, 4] in px of the recorded image of (height, width): what the 2D loss takes."""
        depth = self.metres(camera, stamp_ns, option)
        return np.full(len(rectangles), np.nan) if depth is None else depth.box_values(rectangles, image_size)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)
