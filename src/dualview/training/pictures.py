"""A picture of what the network says every so many steps, beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from dualview.detectors.box_decoding import decode_instances
from dualview.detectors.center_decoding import CenterDecodingConfig, decode_centers
from dualview.detectors.detector import Settings
from dualview.detectors.prediction import Prediction
from dualview.geometry.boxes import Boxes3D
from dualview.networks.center_head import TaskPrediction
from dualview.training.lightning import lightning
from dualview.training.samples import TrainingBatch

_TRUTH, _FOUND = (90, 220, 90), (255, 160, 40)
_MIN_SCORE = 0.2
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)]


class Pictures(lightning().Callback):  # type: ignore[misc]
    """`pictures/<step>.jpg`: the first slot's cameras and bird's-eye view, truth green, found boxes orange."""

    def __init__(self, folder: Path, every: int, settings: Settings) -> None:
        self._folder, self._every, self._settings = folder / "pictures", every, settings

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: TrainingBatch, index: int
    ) -> None:
        """Draw if it is time."""
        prediction, step = module.last_prediction, trainer.global_step
        if not self._every or not trainer.is_global_zero or step % self._every or prediction is None:
            return
        found = found_boxes(prediction, self._settings)
        if found is None:
            return
        path = self._folder / f"{step:07d}.jpg"
        if path.is_file():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        draw_training_picture(batch, found).save(path, quality=88)


def found_boxes(prediction: Prediction, settings: Settings, slot: int = 0) -> torch.Tensor | None:
    """Boxes [M, 9] (as in `GroundTruth`) of one slot, by the decoder, or by the centre head of detectors without one. None
    where the decoder rests.
    """
    decoder = prediction.decoder
    if decoder is not None:
        decoded = decode_instances(
            decoder.class_logits.detach(), decoder.anchors.detach(),
            None if decoder.quality is None else decoder.quality.detach(), score_threshold=_MIN_SCORE,
        )[slot]  # fmt: skip
        return decoded.boxes[:, :9]
    grid, head = settings.bev_grid, settings.center_head
    if settings.decoder is not None or not prediction.center or grid is None or head is None:
        return None
    tasks = [
        TaskPrediction(**{name: value[slot : slot + 1].detach() for name, value in vars(task).items()})
        for task in prediction.center
    ]
    (boxes,) = decode_centers(tasks, head.tasks, grid, settings.class_names, CenterDecodingConfig(), _MIN_SCORE)
    return torch.cat([boxes.center, boxes.size, boxes.yaw[:, None], boxes.velocity[:, :2]], 1)


def draw_training_picture(batch: TrainingBatch, found: torch.Tensor, slot: int = 0) -> Image.Image:
    """The cameras of one slot in a grid of three columns, as the network saw them, and the plane beside them; found
    [M, >= 7]: the boxes that the network gave.
    """
    inputs = batch.inputs
    images = inputs.images[slot].cpu().permute(0, 2, 3, 1).numpy()
    count, height, width, _ = images.shape
    rows = -(-count // 3)
    side = rows * height
    picture = Image.new("RGB", (min(count, 3) * width + side, side))
    sets = ((batch.truths[slot].boxes, _TRUTH), (found.cpu(), _FOUND))
    for camera in range(count):
        view = Image.fromarray(np.ascontiguousarray(images[camera]))
        pen = ImageDraw.Draw(view)
        for boxes, color in sets:
            _draw_in_image(pen, _corners(boxes), inputs.image_from_working[slot, camera].cpu(), color)
        picture.paste(view, (camera % 3 * width, camera // 3 * height))
    plane = Image.new("RGB", (side, side), (24, 24, 28))
    pen = ImageDraw.Draw(plane)
    reach = float(max((boxes[:, :2].abs().max() for boxes, _ in sets if len(boxes)), default=40.0)) + 5
    for boxes, color in sets:
        for corners in _corners(boxes)[:, [0, 1, 3, 2], :2]:
            # x forward is up, y left is left
            place = side / 2 - corners.flip(-1) * side / (2 * reach)
            pen.polygon([(float(u), float(v)) for u, v in place], outline=color)
    picture.paste(plane, (min(count, 3) * width, 0))
    return picture


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """[M, 8, 3] of boxes [M, >= 7]."""
    b = boxes.detach().cpu().float()
    zeros = torch.zeros(len(b))
    return Boxes3D(
        b[:, :3], b[:, 3:6], b[:, 6], torch.zeros(len(b), 3), zeros.long(), zeros, zeros.long()
    ).corners()


def _draw_in_image(
    pen: ImageDraw.ImageDraw,
    corners: torch.Tensor,
    image_from_working: torch.Tensor,
    color: tuple[int, int, int],
) -> None:
    homogeneous = torch.cat([corners.double(), torch.ones(*corners.shape[:2], 1, dtype=torch.float64)], -1)
    projected = homogeneous @ image_from_working.double().T
    for box in projected[(projected[..., 2] > 0.1).all(1)]:
        pixels = (box[:, :2] / box[:, 2:3]).clamp(-1e4, 1e4)
        for a, b in _EDGES:
            pen.line([tuple(pixels[a].tolist()), tuple(pixels[b].tolist())], fill=color)
