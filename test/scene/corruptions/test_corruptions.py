"""What the eight corruptions do to pixels, and that they are the same whenever and wherever they are applied."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dualview.scene.corruptions import catalogue
from dualview.scene.corruptions import corruption as corruption_module
from dualview.scene.corruptions.catalogue import CORRUPTIONS, LOW_LIGHT, SEVERITIES, SNOW, MotionBlur
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.fields import plasma, snow_layer, streak_kernel
from dualview.scene.corruptions.pixels import add_fog, add_snow, brighten, darken, quantize_colors
from dualview.scene.frame import SurroundFrame

SIZE = (90, 160)
STAMPS = [1_600_000_000_000_000_000 + i * 100_000_000 for i in range(40)]
LOSING = ("camera_crash", "frame_lost")


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth coloured scene with edges, all values used."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (size[0] // 16 + 1, size[1] // 16 + 1, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    image[size[0] // 2 :, : size[1] // 3] = (20, 40, 30)
    return np.clip(image, 0, 255).astype(np.uint8)


def frame(cameras: int = 6, mask: list[bool] | None = None, stamp: int = STAMPS[0]) -> SurroundFrame:
    images = np.stack([picture(seed) for seed in range(cameras)]).transpose(0, 3, 1, 2).copy()
    camera_mask = torch.tensor(mask or [True] * cameras)
    return SurroundFrame(
        stamp, torch.from_numpy(images) * camera_mask[:, None, None, None],
        torch.full((cameras,), stamp) + torch.arange(cameras), torch.eye(3).repeat(cameras, 1, 1),
        torch.eye(4).repeat(cameras, 1, 1), torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1),
        torch.eye(4, dtype=torch.float64), camera_mask,
    )  # fmt: skip


def signal_to_noise(clean: np.ndarray, changed: np.ndarray) -> float:
    error = np.mean((clean.astype(float) - changed.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_strengths_are_the_published_ones() -> None:
    """RoboBEV's picks of ImageNet-C's five levels; CAMERA_CRASH and FRAME_LOST count draws among six cameras."""
    level = {"easy, moderate, hard": (2, 4, 5), "low": (2, 3, 4), "first": (1, 2, 3)}
    every = level["easy, moderate, hard"]
    assert catalogue.CRASHED_CAMERAS == every and pytest.approx(catalogue.LOST_SHARE) == [s / 6 for s in every]
    blur = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]
    assert [(m.radius, m.sigma) for m in catalogue.MOTION_BLUR] == [blur[s - 1] for s in every]
    assert list(catalogue.COLOR_BITS) == [5 - s for s in level["first"]]
    assert list(catalogue.BRIGHTNESS) == [[0.1, 0.2, 0.3, 0.4, 0.5][s - 1] for s in every]
    ceiling, photons, noise = [0.6, 0.5, 0.4, 0.3, 0.2], [60, 25, 12, 5, 3], [0.08, 0.12, 0.18, 0.26, 0.38]
    for found, s in zip(LOW_LIGHT, level["low"], strict=True):
        assert (found.ceiling, found.photons, found.noise) == pytest.approx((ceiling[s], 10 * photons[s], 0.1 * noise[s]))
    fog = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]
    assert [(f.amount, f.decay) for f in catalogue.FOG] == [fog[s - 1] for s in every]
    snow = [(0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7)]
    assert [(s.mean, s.deviation, s.flake, s.threshold, s.streak.radius, s.streak.sigma, s.mix) for s in SNOW] == snow


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse_than_the_one_before(name: str) -> None:
    """Over several images: one direction of blur may by chance run along the edges."""
    clean = [picture(seed, (225, 400)) for seed in range(6)]
    ratios = []
    for severity in SEVERITIES:
        made = Corruption(name, severity, seed=1)
        changed = [made.image(image, camera, 6, STAMPS[0]) for camera, image in enumerate(clean)]
        assert all(image.dtype == np.uint8 and image.shape == (225, 400, 3) for image in changed)
        ratios.append(signal_to_noise(np.stack(clean), np.stack(changed)))
    assert ratios[0] < 40 and ratios[0] > ratios[1] > ratios[2]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_decides_and_the_argument_stays(name: str) -> None:
    image = picture()
    before = image.copy()

    def run(seed: int) -> np.ndarray:
        made = Corruption(name, "moderate", seed)
        return np.stack([made.image(image, c, 6, s) for s in STAMPS[:4] for c in range(6)])

    first = run(3)
    assert (first == run(3)).all() and (image == before).all()
    assert (first != run(4)).any() == (name not in ("color_quant", "brightness"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_does_not_depend_on_those_before_it(name: str) -> None:
    """Any frame of a drive, on its own, has the pixels that it has when the whole drive is gone through."""
    image, made = picture(), Corruption(name, "hard", 7)
    through = [made.image(image, 2, 6, stamp) for stamp in STAMPS[:5]]
    assert (made.image(image, 2, 6, STAMPS[3]) == through[3]).all()


def test_crashed_cameras_stay_crashed_and_harder_crashes_hold_them_too() -> None:
    for seed in range(20):
        crashed = []
        for severity in SEVERITIES:
            made = Corruption("camera_crash", severity, seed)
            black = np.array([[made.is_black(c, 6, s) for c in range(6)] for s in STAMPS])
            assert (black == black[0]).all()
            crashed.append(set(np.flatnonzero(black[0])))
        assert crashed[0] <= crashed[1] <= crashed[2]
        assert 1 <= len(crashed[0]) <= 2 and len(crashed[1]) <= 4 and len(crashed[2]) <= 5


def test_the_number_of_crashed_cameras_is_that_of_draws_with_replacement() -> None:
    """Two draws among six hit 11/6 cameras on average, four 3.106, five 3.589 (6 (1 - (5/6)^n))."""
    for severity, draws in zip(SEVERITIES, (2, 4, 5), strict=True):
        counts = [
            sum(Corruption("camera_crash", severity, seed).is_black(c, 6, 0) for c in range(6))
            for seed in range(600)
        ]
        assert np.mean(counts) == pytest.approx(6 * (1 - (5 / 6) ** draws), abs=0.12)


@pytest.mark.parametrize(("cameras", "draws"), [(1, (1, 1, 1)), (3, (1, 2, 3)), (8, (3, 5, 7))])
def test_other_rigs_lose_the_same_share_of_draws(cameras: int, draws: tuple[int, ...]) -> None:
    for severity, most in zip(SEVERITIES, draws, strict=True):
        made = [Corruption("camera_crash", severity, seed) for seed in range(200)]
        counts = [sum(one.is_black(c, cameras, 0) for c in range(cameras)) for one in made]
        assert min(counts) >= 1 and max(counts) == most


def test_lost_images_are_lost_independently_with_the_stated_probability() -> None:
    lost = []
    for severity, share in zip(SEVERITIES, (2 / 6, 4 / 6, 5 / 6), strict=True):
        made = Corruption("frame_lost", severity, 1)
        black = np.array([[made.is_black(c, 6, s) for c in range(6)] for s in range(400)])
        assert black.mean() == pytest.approx(share, abs=0.03)
        assert abs(np.corrcoef(black[:-1].ravel(), black[1:].ravel())[0, 1]) < 0.06  # from frame to frame
        assert abs(np.corrcoef(black[:, 0], black[:, 1])[0, 1]) < 0.15  # from camera to camera
        lost.append(black)
    assert (lost[0] <= lost[1]).all() and (lost[1] <= lost[2]).all()


def test_fog_lasts_and_drifts_while_each_camera_has_its_own() -> None:
    flat = np.full((*SIZE, 3), 100, np.uint8)
    flat[0, 0] = 255
    made = Corruption("fog", "moderate", 0)
    first, soon = (made.image(flat, 0, 6, s).astype(float)[8:, :, 0] for s in (STAMPS[0], STAMPS[1]))
    later = made.image(flat, 0, 6, STAMPS[0] + 2_000_000_000).astype(float)[8:, :, 0]  # 16 px on
    other = made.image(flat, 1, 6, STAMPS[0]).astype(float)[8:, :, 0]
    assert np.abs(soon - first).mean() < 0.2 * np.abs(other - first).mean()
    assert np.abs(later[:, 16:] - first[:, :-16]).max() == 0
    assert np.abs(later - first).mean() > 1


def test_noise_and_flakes_are_new_in_every_image_but_snow_falls_in_one_direction() -> None:
    image = picture()
    for name in ("low_light", "snow"):
        made = Corruption(name, "moderate", 0)
        assert (made.image(image, 0, 6, STAMPS[0]) != made.image(image, 0, 6, STAMPS[1])).mean() > 0.02
    black = np.zeros((225, 400, 3), np.uint8)
    made = Corruption("snow", "hard", 5)

    def direction(stamp: int, camera: int) -> float:
        flakes = made.image(black, camera, 6, stamp)[..., 0].astype(np.float32)
        down, right = np.gradient(flakes)
        return float(0.5 * np.arctan2(2 * (down * right).mean(), (right**2 - down**2).mean()))

    found = [direction(stamp, camera) for stamp in STAMPS[:3] for camera in (0, 5)]
    assert np.ptp(found) < 0.1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_frame_keeps_everything_but_the_images_of_working_cameras(name: str) -> None:
    mask = [True, False, True, True, False, True]
    given = frame(mask=mask)
    before = given.images.clone()
    made = Corruption(name, "hard", 2)
    changed = made.frame(given)
    assert (given.images == before).all()
    assert changed.images.dtype == torch.uint8 and changed.images.shape == given.images.shape
    for field in ("camera_mask", "camera_stamps_ns", "intrinsics", "world_from_ego", "ego_from_camera"):
        assert getattr(changed, field) is getattr(given, field)
    assert (changed.images[[1, 4]] == 0).all()
    for camera in (0, 2, 3, 5):
        pixels = before[camera].permute(1, 2, 0).numpy()
        expected = made.image(pixels, camera, 6, int(given.camera_stamps_ns[camera]))
        assert (changed.images[camera].permute(1, 2, 0).numpy() == expected).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_without_content_is_no_error(name: str) -> None:
    black, white = np.zeros((32, 48, 3), np.uint8), np.full((32, 48, 3), 255, np.uint8)
    for severity in SEVERITIES:
        made = Corruption(name, severity)
        dark, bright = made.image(black, 0, 1, 5), made.image(white, 0, 1, 5)
        assert dark.shape == bright.shape == black.shape
        if name not in ("brightness", "snow", "low_light"):
            assert (dark == 0).all()
        if name in ("brightness", "motion_blur", "snow"):
            assert (bright == 255).all()


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="no corruption 'hail': choose one of camera_crash"):
        Corruption("hail", "easy")
    with pytest.raises(ValueError, match="no severity 'mid': choose one of easy, moderate, hard"):
        Corruption("fog", "mid")
    with pytest.raises(ValueError, match="negative"):
        Corruption("fog", "easy", -1)


# ---- one image


def test_quantized_colors_are_as_many_as_bits_allow() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for bits in (4, 3, 2):
        quantized = quantize_colors(ramp, bits)
        assert len(np.unique(quantized)) == 2**bits
        assert (quantized == ramp // 2 ** (8 - bits) * 2 ** (8 - bits)).all()


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    image = picture()
    before = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    raised = before.copy()
    raised[..., 2] = np.minimum(before[..., 2] + 0.2, 1)
    expected = 255 * cv2.cvtColor(raised, cv2.COLOR_HSV2RGB)
    assert np.abs(brighten(image, 0.2) - expected).max() <= 0.51
    assert (brighten(np.zeros((2, 2, 3), np.uint8), 0.2) == 51).all()


def test_low_light_is_the_squared_image_with_noise_of_the_stated_size() -> None:
    ramp = np.tile(np.linspace(30, 230, 1600).round().astype(np.uint8)[None, :, None], (200, 1, 3))
    light = LOW_LIGHT[1]
    dark = darken(ramp, light, np.random.default_rng(0)).astype(float) / 255
    signal = ((ramp[0, :, 0] - 30.0) / 200) ** 2 * light.ceiling
    bright = slice(1200, 1600)  # where nothing is cut off at 0
    assert dark[:, bright].mean((0, 2)) == pytest.approx(signal[bright], abs=0.02)
    expected = np.sqrt(signal[bright] / light.photons + light.noise**2)
    assert dark[:, bright].std((0, 2)).mean() == pytest.approx(expected.mean(), rel=0.03)


def test_fog_is_the_published_formula() -> None:
    image, thickness = picture(), np.random.default_rng(0).uniform(0, 1, SIZE).astype(np.float32)
    x = image / 255.0
    expected = np.clip((x + 2.0 * thickness[..., None]) * x.max() / (x.max() + 2.0), 0, 1) * 255
    assert np.abs(add_fog(image, 2.0, thickness) - expected).max() <= 0.51


def test_snow_is_the_published_formula_on_swapped_channels() -> None:
    image, layer = picture(), np.random.default_rng(0).uniform(0, 0.3, SIZE).astype(np.float32)
    x = image / 255.0
    grey = cv2.cvtColor(image[..., ::-1].astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)[..., None]
    x = 0.8 * x + 0.2 * np.maximum(x, grey * 1.5 + 0.5)
    expected = np.clip(x + (layer + np.rot90(layer, 2))[..., None], 0, 1) * 255
    assert np.abs(add_snow(image, 0.8, layer) - expected).max() <= 0.51


# ---- fields


def test_a_level_streak_is_half_a_gaussian() -> None:
    kernel = streak_kernel(MotionBlur(10, 4), 0.0)
    middle = kernel.shape[0] // 2
    expected = np.exp(-0.5 * (np.arange(21) / 4) ** 2)
    assert kernel[middle, middle : middle + 21] == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert np.delete(kernel, middle, 0).max() == 0 and kernel[middle, :middle].max() == 0


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("angle", [0.4, -0.7, 1.2])
def test_a_streak_points_its_way_with_its_length_and_no_gaps(angle: float, scale: float) -> None:
    kernel = streak_kernel(MotionBlur(60, 20), angle, scale)
    assert kernel.sum() == pytest.approx(1, abs=1e-5) and kernel.shape[0] % 2 == 1
    middle = kernel.shape[0] // 2
    y, x = np.mgrid[-middle : middle + 1, -middle : middle + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    steps = np.arange(121)
    weight = np.exp(-0.5 * (steps / 20) ** 2)
    assert (kernel * along).sum() == pytest.approx(scale * np.average(steps, weights=weight), rel=0.02)
    assert np.abs(across[kernel > 0]).max() <= np.sqrt(0.5) + 1e-6
    touched, _ = cv2.connectedComponents((kernel > 0).astype(np.uint8), connectivity=8)
    assert touched == 2  # background and one streak


def test_a_corruption_means_the_same_at_half_the_size() -> None:
    """Corrupting and shrinking is nearly shrinking and corrupting: in what is left of the edges, in noise, in flakes."""
    large = cv2.GaussianBlur(picture(0, (450, 1600)), (0, 0), 3)
    small = cv2.resize(large, (800, 225), interpolation=cv2.INTER_AREA)
    for name, tolerance in (("motion_blur", 1.0), ("fog", 25.0), ("low_light", 1.5), ("snow", 1e-6)):
        made = Corruption(name, "hard", 3)
        first = cv2.resize(made.image(large, 0, 6, 1), (800, 225), interpolation=cv2.INTER_AREA).astype(float)
        second = made.image(small, 0, 6, 1).astype(float)
        if name == "motion_blur":
            assert np.abs(first - second)[20:-20, 30:-30].mean() < tolerance
        elif name == "low_light":
            smooth = [image - cv2.GaussianBlur(image, (0, 0), 4) for image in (first, second)]
            assert smooth[1].std() == pytest.approx(smooth[0].std(), rel=0.1)
        elif name == "fog":
            assert second.mean() == pytest.approx(first.mean(), abs=tolerance)
        else:
            assert np.abs(first - second).mean() < 1.0


@pytest.mark.parametrize("decay", [1.4, 2.0])
def test_plasma_is_periodic_spans_zero_to_one_and_its_octaves_fade(decay: float) -> None:
    field = plasma(256, decay, np.random.default_rng(2))
    assert field.shape == (256, 256) and field.min() == 0 and field.max() == pytest.approx(1)
    assert np.abs(field[0] - field[-1]).mean() < 2 * np.abs(np.diff(field, axis=0)).mean()  # no seam

    def shift(grid: np.ndarray) -> float:
        """How far the middles of squares lie from the mean of their corners."""
        corners = grid[0::2, 0::2].astype(float)
        turned = [
            corners,
            np.roll(corners, -1, 0),
            np.roll(corners, -1, 1),
            np.roll(corners, (-1, -1), (0, 1)),
        ]
        return float((grid[1::2, 1::2] - sum(turned) / 4).std())

    assert shift(field[::2, ::2]) / shift(field) == pytest.approx(decay**2, rel=0.03)
    with pytest.raises(ValueError, match="power of two"):
        plasma(100, decay, np.random.default_rng(0))


def test_snow_covers_more_with_severity() -> None:
    covered = [
        (snow_layer((225, 400), snow, -1.5, np.random.default_rng(0)) > 0.05).mean() for snow in SNOW[:2]
    ]
    assert 0.01 < covered[0] < covered[1] < 0.9


def test_fog_is_made_once_though_many_drives_and_cameras_come_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four slots of a training batch with seven cameras each, image by image."""
    made = []

    def counted(size, decay, random):
        made.append(size)
        return plasma(size, decay, random)

    monkeypatch.setattr(corruption_module, "plasma", counted)
    image = np.full((16, 24, 3), 99, np.uint8)
    drives = [Corruption("fog", "hard", 7000 + slot) for slot in range(4)]
    seen = [
        [drive.image(image, camera, 7, STAMPS[step]) for drive in drives for camera in range(7)] for step in range(3)
    ]
    assert len(made) == 4 * 7
    assert len({foggy.tobytes() for foggy in seen[0]}) == 4 * 7  # each camera of each drive has a fog of its own
