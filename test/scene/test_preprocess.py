"""Decoding and resizing: pixels and intrinsics must move together."""

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry.camera_models import distort_rays
from dualview.scene.assembler import CameraInput, ClosedFrame
from dualview.scene.calibration import CameraCalibration
from dualview.scene.images import EncodedImage
from dualview.scene.preprocess import ImageMapping, ImagePreprocessor

K = np.array([[620.0, 0, 399.5], [0, 615.0, 224.5], [0, 0, 1.0]])
RECTIFIED = CameraCalibration(800, 450, K)


def jpeg(pixels: np.ndarray) -> EncodedImage:
    return EncodedImage(0, simplejpeg.encode_jpeg(np.ascontiguousarray(pixels, np.uint8), 95), "jpeg", True)


def closed(image: EncodedImage | None, calibration: CameraCalibration | None, **more: str) -> ClosedFrame:
    camera = CameraInput("front", image, calibration, np.eye(4), np.eye(4))
    return ClosedFrame(0, (camera,), np.eye(4), dict(more))


def spot(u: float, v: float, size: tuple[int, int] = (450, 800), sigma: float = 12.0) -> np.ndarray:
    """A soft bright spot around the pixel centre (u, v): its centroid survives resizing."""
    y, x = np.mgrid[: size[0], : size[1]]
    value = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return np.repeat(value[..., None], 3, -1).astype(np.uint8)


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Of a [3, H, W] image, in the edge convention: the centre of pixel (0, 0) is (0.5, 0.5)."""
    weight = image.astype(np.float64).sum(0)
    weight[weight < 30] = 0
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return (weight * (x + 0.5)).sum() / weight.sum(), (weight * (y + 0.5)).sum() / weight.sum()


@given(st.floats(200, 600), st.floats(250, 380))
@settings(max_examples=15, deadline=None)
def test_a_point_lands_where_the_new_intrinsics_say(u: float, v: float) -> None:
    frame, problems = ImagePreprocessor((128, 352)).build(closed(jpeg(spot(u, v)), RECTIFIED))
    assert problems == {} and frame.camera_mask.tolist() == [True]
    ray = np.linalg.inv(K) @ [u, v, 1.0]
    expected = frame.intrinsics[0].double().numpy() @ ray
    np.testing.assert_allclose(centroid(frame.images[0].numpy()), expected[:2] / expected[2], atol=0.15)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("plumb_bob", [-0.25, 0.06, 0.001, -0.001, 0.0]), ("equidistant", [-0.01, 0.002, 0.0, 0.0]),
     ("rational_polynomial", [0.3, -0.05, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0])],
)  # fmt: skip
@pytest.mark.parametrize("network", [(128, 352), (256, 448)])
def test_a_distorted_point_lands_where_the_pinhole_model_says(model: str, distortion: list, network: tuple) -> None:
    calibration = CameraCalibration(800, 450, K, model, np.array(distortion))
    ray = np.array([0.22, 0.1])
    shown = K[:2, :2] @ distort_rays(ray[None], model, np.array(distortion))[0] + K[:2, 2]
    frame, _ = ImagePreprocessor(network).build(closed(jpeg(spot(*shown)), calibration))
    expected = frame.intrinsics[0].double().numpy() @ [*ray, 1.0]
    np.testing.assert_allclose(centroid(frame.images[0].numpy()), expected[:2], atol=0.3)


def test_the_rectified_camera_of_P_is_used_when_it_is_given() -> None:
    zoomed = K * [[0.8], [0.8], [1.0]]
    calibration = CameraCalibration(800, 450, K, "plumb_bob", np.array([-0.2, 0, 0, 0]), zoomed)
    frame, _ = ImagePreprocessor((256, 448)).build(closed(jpeg(spot(400, 300)), calibration))
    assert frame.intrinsics[0, 0, 0].item() == pytest.approx(zoomed[0, 0] * 455 / 800)


def test_covering_keeps_the_bottom_and_the_middle() -> None:
    assert ImageMapping.covering((900, 1600), (256, 704)) == ImageMapping((396, 704), 140, 0)
    assert ImageMapping.covering((900, 1600), (128, 352)) == ImageMapping((198, 352), 70, 0)
    wide = ImageMapping.covering((400, 1600), (256, 704))
    assert wide.resized == (256, 1024) and (wide.top, wide.left) == (0, 160)


@pytest.mark.parametrize("size", [(128, 352), (300, 900), (37, 51)])
def test_any_network_size_is_filled(size: tuple[int, int]) -> None:
    frame, _ = ImagePreprocessor(size).build(closed(jpeg(np.full((450, 800, 3), 200)), RECTIFIED))
    assert frame.images.shape == (1, 3, *size)
    assert frame.images.min() > 190


def raw(pixels: np.ndarray, encoding: str, pad: int = 0) -> EncodedImage:
    rows = pixels.reshape(pixels.shape[0], -1)
    padded = np.concatenate([rows, np.zeros((len(rows), pad), np.uint8)], 1)
    return EncodedImage(0, padded.tobytes(), encoding, False, "", pixels.shape[0], pixels.shape[1], padded.shape[1])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422_yuy2", "uyvy", "bayer_rggb8"])
def test_raw_encodings_give_the_same_colour(encoding: str) -> None:
    colour = np.array([200, 90, 40], np.uint8)
    rgb = np.tile(colour, (450, 800, 1))
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA),
        "bgra8": cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA),
        "mono8": cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
        "yuv422_yuy2": cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_YUY2),
        "uyvy": cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_UYVY),
    }.get(encoding)
    if encoding == "bayer_rggb8":
        pixels = np.empty((450, 800), np.uint8)
        pixels[::2, ::2], pixels[1::2, 1::2] = colour[0], colour[2]
        pixels[::2, 1::2] = pixels[1::2, ::2] = colour[1]
    frame, problems = ImagePreprocessor((128, 352)).build(closed(raw(pixels, encoding, pad=16), RECTIFIED))
    assert problems == {}
    seen = frame.images[0].float().mean((1, 2)).numpy()
    expected = np.repeat(pixels[0, 0], 3) if encoding == "mono8" else colour
    np.testing.assert_allclose(seen, expected, atol=4)


def test_broken_images_are_masked_and_named() -> None:
    good = jpeg(spot(400, 300))
    cases = {
        "the JPEG is broken": EncodedImage(0, good.data[: len(good.data) // 2], "jpeg", True),
        "can't be decoded": EncodedImage(0, b"not an image", "jpeg", True),
        "(format 'jpeg') is empty": EncodedImage(0, b"", "jpeg", True),
        "its camera_info says 800x450": jpeg(np.zeros((225, 400, 3), np.uint8)),
        "encoding '16UC1' is not known": EncodedImage(0, bytes(720000), "16UC1", False, "", 450, 800, 1600),
        "needs 1080000 bytes": EncodedImage(0, bytes(1000), "bgr8", False, "", 450, 800, 2400),
    }
    for words, image in cases.items():
        frame, problems = ImagePreprocessor((128, 352)).build(closed(image, RECTIFIED))
        assert words in problems["front"], problems
        assert frame.camera_mask.tolist() == [False]
        assert frame.images.max() == 0


def test_png_is_understood() -> None:
    ok, data = cv2.imencode(".png", spot(400, 300))
    assert ok
    frame, problems = ImagePreprocessor((128, 352)).build(closed(EncodedImage(0, data.tobytes(), "png", True), RECTIFIED))
    assert problems == {} and frame.images.max() > 200


def test_masked_cameras_keep_their_slot_and_problems_are_passed_on() -> None:
    frame, problems = ImagePreprocessor((128, 352)).build(closed(None, None, front="silent for 3.0 s"))
    assert problems == {"front": "silent for 3.0 s"}
    assert frame.camera_mask.tolist() == [False] and frame.images.shape == (1, 3, 128, 352)


def test_threads_give_the_same_pixels() -> None:
    camera = [CameraInput(str(i), jpeg(spot(100 * i + 100, 300)), RECTIFIED, np.eye(4), np.eye(4)) for i in range(6)]
    frame = ClosedFrame(0, tuple(camera), np.eye(4), {})
    one, two = ImagePreprocessor((128, 352)).build(frame)[0], ImagePreprocessor((128, 352), workers=3).build(frame)[0]
    assert (one.images == two.images).all() and one.images.max() > 200


def test_a_new_calibration_replaces_the_old_table() -> None:
    preprocessor = ImagePreprocessor((128, 352))
    first, _ = preprocessor.build(closed(jpeg(spot(400, 300)), RECTIFIED))
    moved = CameraCalibration(800, 450, K + [[0, 0, 20.0], [0, 0, 0], [0, 0, 0]])
    second, _ = preprocessor.build(closed(jpeg(spot(400, 300)), moved))
    assert (second.intrinsics - first.intrinsics)[0, 0, 2].item() == pytest.approx(20 * 0.44, abs=1e-3)
