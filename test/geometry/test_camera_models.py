"""Undistortion: a straight world stays straight, whatever the lens."""

import numpy as np
import pytest

from dualview.geometry.camera_models import DISTORTION_MODELS, distort_rays, undistortion_map

LENSES = {
    "plumb_bob": np.array([-0.3, 0.09, 0.001, -0.0005, -0.01]),
    "rational_polynomial": np.array([0.4, -0.1, 0.0003, 0.0002, 0.01, 0.75, -0.05, 0.002]),
    "equidistant": np.array([-0.02, 0.005, -0.002, 0.0003]),
}
SOURCE = np.array([[500.0, 0, 399.5], [0, 510.0, 299.5], [0, 0, 1]])
TARGET = np.array([[250.0, 0, 199.5], [0, 250.0, 149.5], [0, 0, 1]])


@pytest.mark.parametrize("model", LENSES)
def test_map_points_where_the_lens_shows_each_pixel(model: str) -> None:
    table = undistortion_map(SOURCE, model, LENSES[model], TARGET, (300, 400))
    for v, u in [(149, 199), (20, 30), (280, 350)]:
        ray = np.linalg.inv(TARGET) @ [u, v, 1]
        shown = distort_rays(ray[None, :2], model, LENSES[model])[0]
        expected = SOURCE[:2, :2] @ shown + SOURCE[:2, 2]
        np.testing.assert_allclose(table[v, u], expected, atol=2e-3)


def test_the_equidistant_lens_shows_the_angle() -> None:
    """Without coefficients the fisheye radius is the angle to the axis: r = theta (Kannala & Brandt)."""
    shown = distort_rays(np.array([[np.tan(0.7), 0.0]]), "equidistant", np.zeros(4))
    np.testing.assert_allclose(shown, [[0.7, 0.0]], atol=1e-9)


def test_plumb_bob_radius_follows_its_polynomial() -> None:
    k1, k2 = -0.2, 0.03
    shown = distort_rays(np.array([[0.5, 0.0]]), "plumb_bob", np.array([k1, k2, 0, 0]))
    np.testing.assert_allclose(shown[0, 0], 0.5 * (1 + k1 * 0.25 + k2 * 0.0625), atol=1e-12)


def test_rays_beyond_the_turning_point_of_the_polynomial_are_outside() -> None:
    """r (1 - 0.3 r^2) turns back at r = 1.054: what lies farther out would appear a second time in the image."""
    wide = np.array([[100.0, 0, 199.5], [0, 100.0, 149.5], [0, 0, 1]])
    table = undistortion_map(SOURCE, "plumb_bob", np.array([-0.3, 0, 0, 0]), wide, (300, 400))
    assert table[149, 399, 0] > 1e5  # ray x = 2.0
    assert table[149, 249, 0] < 800  # ray x = 0.5


def test_every_model_has_a_lens_here() -> None:
    assert set(LENSES) == set(DISTORTION_MODELS)
