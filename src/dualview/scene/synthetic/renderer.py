"""Pictures, depth and segmentation of a world through a calibrated camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.headless import open_context
from dualview.scene.synthetic.scene_model import (
    FAR,
    GROUP_HIDDEN,
    GROUP_PAINTED,
    GROUP_SOLID,
    NEAR,
    SHADOW_AHEAD,
    SHADOW_REACH,
    SceneModel,
)

_SMALLEST = 1.2  # px, geoms whose radius looks smaller are not drawn


@dataclass(frozen=True)
class View:
    """A camera at an instant: intrinsics [3, 3] (px from the upper left corner, square pixels), world_from_camera [4, 4] (m)."""

    intrinsics: np.ndarray
    width: int
    height: int
    world_from_camera: np.ndarray


@dataclass(frozen=True)
class Shot:
    """What a camera sees: picture uint8 [H, W, 3] RGB, actor of each pixel int [H, W] (-1 = scenery or sky), depth [H, W] (m along the
    optical axis); picture and depth only if asked for."""

    image: np.ndarray | None
    actors: np.ndarray
    depth: np.ndarray | None


class Renderer:
    """Draws `SceneModel`s as they are posed. Owns an OpenGL context: close it, or use it with `with`."""

    def __init__(self, scene: SceneModel, max_size: tuple[int, int], shadows: bool) -> None:
        mj = self._mj = scene.mujoco
        self._scene = scene
        self._gl: Any = open_context(mj, max_size[1], max_size[0])
        self._context = mj.MjrContext(scene.model, mj.mjtFontScale.mjFONTSCALE_100)
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mj.mjtDepthMap.mjDEPTH_ZEROFAR
        self._visual = mj.MjvScene(scene.model, maxgeom=scene.model.ngeom + 100)
        self._option = mj.MjvOption()
        self._option.geomgroup[:] = 1
        self._option.geomgroup[GROUP_HIDDEN] = 0
        self._camera = mj.MjvCamera()
        self._shadows = shadows
        flag = mj.mjtRndFlag
        self._visual.flags[flag.mjRND_SHADOW] = shadows
        self._visual.flags[flag.mjRND_FOG] = 1
        self._visual.flags[flag.mjRND_HAZE] = 0
        self._visual.flags[flag.mjRND_REFLECTION] = 0

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the OpenGL context back."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def shoot(self, view: View, colour: bool = True, depth: bool = False) -> Shot:
        """A picture with its segmentation. Call it after the world was posed.

        The segmentation comes first, of all that the frustum may hold; the picture is then drawn of only those geoms that it shows, and of
        those near by that may throw a shadow into it.
        """
        self._gl.make_current()  # another renderer may have been at work in this thread
        place, forward = view.world_from_camera[:3, 3], view.world_from_camera[:3, 2]
        self._select(view, self._visible(view))
        geoms, z = self._segment(view, depth)
        actors = np.where(geoms >= 0, self._scene.actor_of_geom[geoms], -1)
        image = None
        if colour:
            seen = np.zeros(self._scene.model.ngeom, bool)
            seen[geoms[geoms >= 0]] = True
            seen |= (self._scene.base_group == GROUP_PAINTED) & self._visible(
                view
            )  # lamps and paint are small and many
            if self._shadows:
                away = self._scene.data.geom_xpos[:, :2] - (place[:2] + SHADOW_AHEAD * forward[:2])
                radius = self._scene.model.geom_rbound
                seen |= (
                    (np.hypot(away[:, 0], away[:, 1]) - radius < SHADOW_REACH)
                    & (radius > 0.25)
                    & (self._scene.base_group == GROUP_SOLID)
                )
            self._select(view, seen)
            image = self._colour(view)
        return Shot(image, actors, z)

    def _select(self, view: View, shown: np.ndarray) -> None:
        """Set up the scene with the geoms that `shown` [G] names, and aim the camera."""
        mj, scene, model = self._mj, self._scene, self._scene.model
        rotation, place = view.world_from_camera[:3, :3], view.world_from_camera[:3, 3]
        model.geom_group[:] = np.where(shown, scene.base_group, GROUP_HIDDEN)
        mj.mjv_updateScene(
            model, scene.data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL, self._visual
        )
        k = view.intrinsics
        left, right = -NEAR * k[0, 2] / k[0, 0], NEAR * (view.width - k[0, 2]) / k[0, 0]
        for index in range(2):
            camera = self._visual.camera[index]
            camera.pos, camera.forward, camera.up = place, rotation[:, 2], -rotation[:, 1]
            camera.frustum_near, camera.frustum_far = NEAR, FAR
            camera.frustum_top, camera.frustum_bottom = (
                NEAR * k[1, 2] / k[1, 1],
                -NEAR * (view.height - k[1, 2]) / k[1, 1],
            )
            camera.frustum_center = (left + right) / 2
        for light in self._visual.lights[: self._visual.nlight]:
            if light.castshadow:  # the shadow map is spread around the light's axis
                light.pos = (
                    np.array([*(place[:2] + SHADOW_AHEAD * rotation[:2, 2]), 0.0])
                    + scene.world.weather.sun * 60.0
                )

    def _visible(self, view: View) -> np.ndarray:
        model, data = self._scene.model, self._scene.data
        rotation, place = view.world_from_camera[:3, :3], view.world_from_camera[:3, 3]
        local = (data.geom_xpos - place) @ rotation
        radius = model.geom_rbound
        k = view.intrinsics
        seen = (local[:, 2] > -radius) & (local[:, 2] < FAR + radius)
        for axis, size in ((0, view.width), (1, view.height)):
            for edge in (-k[axis, 2] / k[axis, axis], (size - k[axis, 2]) / k[axis, axis]):
                normal = (
                    np.array([1.0, -edge]) if edge < 0 else np.array([-1.0, edge])
                )  # points into the frustum
                seen &= (local[:, axis] * normal[0] + local[:, 2] * normal[1]) / np.hypot(*normal) > -radius
        large = radius * k[0, 0] > _SMALLEST * np.maximum(local[:, 2], 1.0)
        return (seen & large) | (radius == 0)

    def _draw(self, view: View, segment: bool) -> None:
        flag = self._mj.mjtRndFlag
        self._visual.flags[flag.mjRND_SEGMENT] = segment
        self._visual.flags[flag.mjRND_IDCOLOR] = segment
        self._mj.mjr_render(self._mj.MjrRect(0, 0, view.width, view.height), self._visual, self._context)

    def _colour(self, view: View) -> np.ndarray:
        self._draw(view, segment=False)
        image = np.empty((view.height, view.width, 3), np.uint8)
        self._mj.mjr_readPixels(image, None, self._mj.MjrRect(0, 0, view.width, view.height), self._context)
        return image[::-1]

    def _segment(self, view: View, depth: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Geom of each pixel, int32 [H, W] (-1 = sky), and depth along the optical axis."""
        self._draw(view, segment=True)
        rectangle = self._mj.MjrRect(0, 0, view.width, view.height)
        image = np.empty((view.height, view.width, 3), np.uint8)
        buffer = np.empty((view.height, view.width), np.float32) if depth else None
        self._mj.mjr_readPixels(image, buffer, rectangle, self._context)
        number = image[..., 0].astype(np.int32)
        number |= image[..., 1].astype(np.int32) << 8
        count = self._visual.ngeom
        table = np.full(count + 2, -1, np.int32)
        geom_kind = int(self._mj.mjtObj.mjOBJ_GEOM)
        for geom in self._visual.geoms[:count]:
            if geom.segid >= 0 and geom.objtype == geom_kind:
                table[geom.segid + 1] = geom.objid
        geoms = table[np.minimum(number, count + 1)]
        if buffer is None:
            return geoms[::-1], None
        # The depth buffer is reversed: 1 at the near plane, 0 at the far one.
        z = NEAR * FAR / (NEAR + buffer.astype(np.float64) * (FAR - NEAR))
        return geoms[::-1], z[::-1]


def soften_stairs(image: np.ndarray, threshold: int = 12) -> np.ndarray:
    """Blur only across hard edges: stands in for multi-sampling, which doubles the cost of shadows."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edge = cv2.absdiff(grey, cv2.GaussianBlur(grey, (3, 3), 1.0)) > threshold
    out = image.copy()
    cv2.copyTo(cv2.GaussianBlur(image, (3, 3), 0.65), edge.astype(np.uint8), out)
    return out


class Film:
    """What a camera makes of the light: colour balance, contrast, vignette, sensor noise. Deterministic by seed."""

    def __init__(self, domain: Domain, seed: int, size: tuple[int, int], smooth: bool) -> None:
        self._smooth = smooth
        rng = np.random.default_rng([seed, 21])
        height, width = size
        levels = np.arange(256) / 255.0
        curve = np.clip(levels * 1.06, 0, 1) ** (0.76 * domain.gamma)
        curve = curve - 0.22 * np.sin(2 * np.pi * curve) / (2 * np.pi)  # a little more contrast
        self._tables = [np.clip(255 * curve * gain, 0, 255).astype(np.uint8) for gain in domain.gain]
        y, x = np.mgrid[0:height, 0:width]
        radius = np.hypot((x - width / 2) / width, (y - height / 2) / height) / np.hypot(0.5, 0.5)
        self._vignette = np.repeat(
            (255 * (1 - domain.vignette * radius**2.5)).astype(np.uint8)[..., None], 3, 2
        )
        grain = cv2.GaussianBlur(
            rng.normal(0, 1, (height + 64, width + 64, 3)).astype(np.float32), (0, 0), 0.6
        )
        grain = grain / grain.std() * domain.sensor_noise
        self._brighter, self._darker = (
            np.clip(np.round(sign * grain), 0, 255).astype(np.uint8) for sign in (1, -1)
        )

    def develop(self, image: np.ndarray, frame: int) -> np.ndarray:
        """The picture as recorded, uint8 [H, W, 3]; `frame` chooses the grain."""
        height, width = image.shape[:2]
        if self._smooth:
            image = soften_stairs(image)
        lut = np.stack(self._tables, -1)[None]
        out = cv2.LUT(np.ascontiguousarray(image), lut)
        out = cv2.multiply(out, self._vignette, scale=1 / 255.0)
        dy, dx = (frame * 37) % 64, (frame * 23) % 64
        place = np.s_[dy : dy + height, dx : dx + width]
        return cv2.subtract(cv2.add(out, self._brighter[place]), self._darker[place])
