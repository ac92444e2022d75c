"""Photometric distortion and GridMask change pixels in the way that they say."""

import numpy as np
import pytest
import torch

from dualview.scene.augmentation.grid_mask import GridMaskSettings, draw_grid, mask_images
from dualview.scene.augmentation.photometric import Photometric, PhotometricSettings, distort


def test_brightness_and_contrast_are_exact() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    changed = Photometric(brightness=10, contrast=1.5).apply(image)
    assert (changed == np.clip((image.astype(float) + 10) * 1.5, 0, 255).astype(np.uint8)).all()
    assert (Photometric().apply(image) == image).all()


def test_grey_has_no_hue_and_no_saturation_to_change() -> None:
    grey = np.full((8, 8, 3), 120, np.uint8)
    assert (Photometric(hue=18, saturation=1.5).apply(grey) == grey).all()


def test_hue_turns_red_towards_yellow() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    turned = Photometric(hue=18).apply(red)
    assert turned[0, 0, 0] == 200 and turned[0, 0, 1] == pytest.approx(60, abs=2) and turned[0, 0, 2] == 0


def test_each_camera_has_its_own_look_and_the_input_stays() -> None:
    images = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    changed = distort(images, [Photometric(), Photometric(brightness=20)])
    assert changed.shape == images.shape and int(images.max()) == 100
    assert int(changed[0].max()) == 100 and int(changed[1].min()) == 120


def test_no_probability_means_no_change() -> None:
    look = Photometric.draw(np.random.default_rng(0), PhotometricSettings(probability=0.0))
    assert look == Photometric()


def test_grid_mask_blacks_out_about_a_quarter() -> None:
    masked = [draw_grid(np.random.default_rng(s), (128, 352), GridMaskSettings(1.0, 0.5)) for s in range(100)]
    hidden = np.mean([1 - float(mask.float().mean()) for mask in masked if mask is not None])
    assert 0.2 < hidden < 0.32
    assert draw_grid(np.random.default_rng(0), (128, 352), GridMaskSettings(0.0)) is None


def test_masked_pixels_are_black_in_every_camera_and_the_others_stay() -> None:
    images = torch.full((2, 3, 32, 32), 9, dtype=torch.uint8)
    visible = draw_grid(np.random.default_rng(1), (32, 32), GridMaskSettings(1.0))
    assert visible is not None
    result = mask_images(images, visible)
    assert bool((result[:, :, visible] == 9).all()) and bool((result[:, :, ~visible] == 0).all())
