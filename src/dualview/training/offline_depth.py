"""The depth maps of 2D-labelled recordings (`dualview label-depth`) in training: whose they are, and what the detector's own depth can
learn of them.

"2D supervised fine-tuning" reads the depth of labelled objects alone, for a detector that lifts nothing. Where image features are lifted
into a BEV map, boxes begin where the lift puts them, and no rectangle says where that is; so the same maps may also stand in for the LiDAR
depth that the lift learned from (`labels_2d.own_depth: maps`).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview.scene.depth_labels.store import DepthStore, depth_folder
from dualview.scene.labels_2d.labels import points_to_network
from dualview.training.labels_2d_settings import Labels2DSettings
from dualview.training.labels_2d_store import LabelCache
from dualview.training.lidar_depth import MIN_DEPTH, depth_maps
from dualview.training.samples import FrameView

_KEPT = 64  # stores whose scale and shift stay read


def depth_store(recording: str, settings: Labels2DSettings) -> DepthStore:
    """Where the depth maps of a recording are."""
    assert settings.depth is not None
    root = None if settings.depth_folder is None else Path(settings.depth_folder).expanduser()
    return DepthStore(depth_folder(recording, settings.depth, root))


class DepthStores:
    """The depth maps of recordings, by name of the recording."""

    def __init__(self, settings: Labels2DSettings) -> None:
        self._settings = settings
        self._stores: OrderedDict[str, DepthStore] = OrderedDict()

    def __call__(self, recording: str) -> DepthStore:
        """The store of one recording."""
        store = self._stores.pop(recording, None) or depth_store(recording, self._settings)
        self._stores[recording] = store
        if len(self._stores) > _KEPT:
            self._stores.popitem(last=False)
        return store


class MapDepthReader:
    """Reads a sample's depth [N, H, W] (m along the optical axis, 0 = not known, as `depth_maps` has it) from the maps of its recording;
    the image augmentation included. Raises BagError or ImageError for files that are damaged.
    """

    def __init__(self, settings: Labels2DSettings, image_size: tuple[int, int]) -> None:
        self._settings, self._image_size = settings, image_size
        self._stores, self._labels = DepthStores(settings), LabelCache()

    def __call__(self, view: FrameView) -> Tensor:
        """The depth of all cameras; 0 for those that are masked, or have no map or no calibration."""
        frame, drive = view.labelled.frame, view.drive
        assert frame.camera_names is not None and drive.labels_2d is not None
        calibrations = self._labels(drive.folder / drive.labels_2d).calibrations
        store, rows = self._stores(drive.source), [torch.zeros(0, 4)]
        for index, camera in enumerate(frame.camera_names):
            calibration = calibrations.get(camera)
            if calibration is None or not view.inputs.camera_mask[0, index]:
                continue
            depth = store.metres(camera, int(frame.camera_stamps_ns[index]), self._settings.metric)
            if depth is None:
                continue
            row, column = np.nonzero(depth.values > MIN_DEPTH)
            height, width = depth.values.shape
            scale = (calibration.width / width, calibration.height / height)
            recorded = torch.from_numpy((np.stack([column, row], 1) + 0.5) * scale)
            pixels = points_to_network(recorded, calibration, self._image_size)
            values = torch.from_numpy(depth.values[row, column]).double()
            rows.append(torch.cat([torch.full_like(pixels[:, :1], index), pixels, values[:, None]], 1).float())
        matrix = view.draw.image.augmented_from_original
        return depth_maps(torch.cat(rows), matrix, len(frame.camera_names), self._image_size)
