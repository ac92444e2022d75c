"""Triangle meshes and the few ways in which the synthetic world builds them.

A mesh keeps one vertex for each corner of each triangle, so that hard edges, smooth surfaces and texture seams need no bookkeeping.
Frames are those of whoever holds the mesh (an object: x forward, y left, z up, origin on the ground below its centre; scenery: the world).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """F triangles: vertices [F, 3, 3] (m), normals [F, 3, 3] (unit), texcoords [F, 3, 2] (pictures; v counts down from the first row)."""

    vertices: np.ndarray
    normals: np.ndarray
    texcoords: np.ndarray

    def __len__(self) -> int:
        return len(self.vertices)

    def transformed(
        self,
        rotation: np.ndarray | None = None,
        translation: tuple[float, float, float] | np.ndarray = (0, 0, 0),
    ) -> Mesh:
        """The same mesh, turned by `rotation` [3, 3] and then moved (m)."""
        vertices, normals = self.vertices, self.normals
        if rotation is not None:
            vertices, normals = vertices @ rotation.T, normals @ rotation.T
        return Mesh(vertices + np.asarray(translation, dtype=np.float64), normals, self.texcoords)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """The same mesh, moved (m)."""
        return self.transformed(translation=(x, y, z))

    def mirrored(self) -> Mesh:
        """The mirror image in the xz plane (left becomes right)."""
        flip = np.array([1.0, -1.0, 1.0])
        return Mesh((self.vertices * flip)[:, ::-1], (self.normals * flip)[:, ::-1], self.texcoords[:, ::-1])

    def with_texcoord(self, texcoord: tuple[float, float]) -> Mesh:
        """The same mesh in the one colour that the texture has at `texcoord`."""
        return Mesh(
            self.vertices,
            self.normals,
            np.broadcast_to(np.asarray(texcoord, np.float64), (len(self), 3, 2)).copy(),
        )

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates [3], [3] (m)."""
        points = self.vertices.reshape(-1, 3)
        return points.min(0), points.max(0)


def merge(parts: list[Mesh]) -> Mesh:
    """All triangles of `parts` as one mesh."""
    return Mesh(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("vertices", "normals", "texcoords"))
    )


def rotation_z(angle: float) -> np.ndarray:
    """Rotation [3, 3] by `angle` (rad) about z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_y(angle: float) -> np.ndarray:
    """Rotation [3, 3] by `angle` (rad) about y; positive takes x to -z (nose down)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_x(angle: float) -> np.ndarray:
    """Rotation [3, 3] by `angle` (rad) about x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def from_triangles(
    vertices: np.ndarray, faces: np.ndarray, crease: float = 40.0, texcoords: np.ndarray | None = None
) -> Mesh:
    """Mesh from shared vertices [V, 3] and faces [F, 3]; edges sharper than `crease` (degrees) stay hard.

    `texcoords` [V, 2] or none (all zero). Triangles without area are dropped.
    """
    corners = vertices[faces]
    area_normals = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(area_normals, axis=1)
    keep = length > 1e-9
    faces, corners, area_normals = faces[keep], corners[keep], area_normals[keep]
    unit = area_normals / length[keep, None]
    # Pairs of triangles that meet at a vertex: each corner takes the area-weighted normals of those within the crease angle.
    _, welded = np.unique(np.round(corners.reshape(-1, 3), 5), axis=0, return_inverse=True)
    welded = welded.reshape(-1)
    order = np.argsort(welded, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(welded[order]) > 0])
    counts = np.diff(np.r_[starts, len(order)])
    normals = np.zeros((len(order), 3))
    for count in np.unique(counts):
        groups = order[starts[counts == count][:, None] + np.arange(count)]  # [G, count] corners
        triangle = groups // 3
        similar = (unit[triangle][:, :, None] * unit[triangle][:, None]).sum(-1) > np.cos(np.radians(crease))
        normals[groups.reshape(-1)] = (similar.astype(float) @ area_normals[triangle]).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    coordinates = np.zeros((len(faces), 3, 2)) if texcoords is None else texcoords[faces]
    return Mesh(corners, normals.reshape(-1, 3, 3), coordinates)


def loft(rings: np.ndarray, crease: float = 40.0, cap: bool = True) -> Mesh:
    """Skin over closed rings [S, K, 3]; each ring runs counter-clockwise seen from the last ring's side. Texcoords: (along, around)."""
    sections, around, _ = rings.shape
    index = np.arange(sections * around).reshape(sections, around)
    here, there = index, np.roll(index, -1, axis=1)
    a, b, c, d = here[:-1], there[:-1], there[1:], here[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    vertices = rings.reshape(-1, 3)
    if cap:
        vertices = np.concatenate(
            [vertices, rings[0].mean(0, keepdims=True), rings[-1].mean(0, keepdims=True)]
        )
        first, last = len(vertices) - 2, len(vertices) - 1
        start = np.stack([np.full(around, first), there[0], here[0]], -1)
        end = np.stack([np.full(around, last), here[-1], there[-1]], -1)
        faces = np.concatenate([faces, start, end])
    return from_triangles(vertices, faces, crease)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of vectors [..., 3]; numpy's own takes ten times as long for few of them."""
    return np.stack([a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1], a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
                     a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]], -1)  # fmt: skip


def box(
    size: tuple[float, float, float],
    center: tuple[float, float, float] = (0, 0, 0),
    tile: float | None = None,
) -> Mesh:
    """Box of `size` (m) around `center`; faces are textured 0..1, or in units of `tile` metres."""
    vertices = _BOX.vertices * np.asarray(size, np.float64) + np.asarray(center, np.float64)
    texcoords = _BOX.texcoords
    if tile is not None:
        extent = np.array([(size[u], size[v]) for u, v in ((1, 2), (0, 2), (0, 1)) for _ in range(4)])[
            :, None
        ]
        texcoords = texcoords * extent / tile
    return Mesh(vertices, _BOX.normals, texcoords)


def quad(corners: np.ndarray, texcoords: np.ndarray | None = None) -> Mesh:
    """A flat four-cornered face [4, 3], counter-clockwise seen from its front."""
    corners = np.asarray(corners, np.float64)
    texcoords = (
        np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]])
        if texcoords is None
        else np.asarray(texcoords, np.float64)
    )
    normal = _cross(corners[1] - corners[0], corners[2] - corners[0]) + _cross(
        corners[2] - corners[0], corners[3] - corners[0]
    )
    normal /= np.linalg.norm(normal) + 1e-12
    pick = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(corners[pick], np.broadcast_to(normal, (2, 3, 3)).copy(), texcoords[pick])


def revolve(profile: list[tuple[float, float]], segments: int = 12, crease: float = 40.0) -> Mesh:
    """Solid of revolution about z from (radius, z) points listed from bottom to top; texcoords (angle, height) in 0..1."""
    points = np.asarray(profile, np.float64)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    vertices = np.concatenate(
        [points[:, None, :1] * ring, np.broadcast_to(points[:, None, 1:], (len(points), segments + 1, 1))], -1
    )
    height = (points[:, 1] - points[0, 1]) / max(points[-1, 1] - points[0, 1], 1e-9)
    texture = np.stack(np.meshgrid(height, angle / (2 * np.pi), indexing="ij")[::-1], -1)
    index = np.arange(len(points) * (segments + 1)).reshape(len(points), segments + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return from_triangles(vertices.reshape(-1, 3), faces, crease, texture.reshape(-1, 2))


def cylinder(radius: float, length: float, segments: int = 12) -> Mesh:
    """Closed cylinder about z from z = 0 to `length`."""
    return revolve([(0, 0), (radius, 0), (radius, length), (0, length)], segments)


def disc(radius: float, center: tuple[float, float, float], side: float, segments: int = 14) -> Mesh:
    """A round face in the xz plane that looks towards +y (`side` > 0) or -y; texcoords show a picture upright."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)[:-1] * np.sign(side)
    unit = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.concatenate(
        [np.stack([unit[:, 0], np.zeros(segments), unit[:, 1]], -1) * radius, [[0, 0, 0]]]
    ) + np.asarray(center)
    faces = np.array([[i, segments, (i + 1) % segments] for i in range(segments)])
    return from_triangles(points, faces, texcoords=np.concatenate([unit * [0.5, -0.5] + 0.5, [[0.5, 0.5]]]))


def ellipsoid(radii: tuple[float, float, float], segments: int = 8, rings: int = 5) -> Mesh:
    """Ellipsoid around the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    ball = revolve([(np.cos(a), np.sin(a)) for a in angle], segments, crease=80.0)
    scale = np.asarray(radii, np.float64)
    normals = ball.normals / scale
    return Mesh(
        ball.vertices * scale, normals / np.linalg.norm(normals, axis=-1, keepdims=True), ball.texcoords
    )


def tube(
    start: np.ndarray | tuple,
    end: np.ndarray | tuple,
    radius: float,
    end_radius: float | None = None,
    segments: int = 6,
) -> Mesh:
    """Round bar from `start` to `end` (m), tapering to `end_radius`."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = end - start
    length = float(np.linalg.norm(axis))
    axis /= length
    side = _cross(axis, np.array([0, 0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0, 0]))
    side /= np.linalg.norm(side)
    rotation = np.stack([side, _cross(axis, side), axis], -1)
    far = radius if end_radius is None else end_radius
    return revolve([(0, 0), (radius, 0), (far, length), (0, length)], segments).transformed(rotation, start)


def extrude(outline: np.ndarray, depth: float) -> Mesh:
    """A convex outline [K, 2] in the xz plane, counter-clockwise seen from -y, extruded to +-depth / 2 along y."""
    ring = np.stack([outline[:, 0], np.zeros(len(outline)), outline[:, 1]], -1)
    back, front = ring + [0, depth / 2, 0], ring - [0, depth / 2, 0]
    return loft(np.stack([back, front]), crease=25.0)


def polygon_fan(outline: np.ndarray, z: float, tile: float) -> Mesh:
    """A flat, star-shaped outline [K, 2] (m, counter-clockwise) at height z, facing up, textured by position over `tile` metres."""
    center = outline.mean(0)
    following = np.roll(outline, -1, axis=0)
    triangles = np.stack([np.broadcast_to(center, outline.shape), outline, following], 1)  # [K, 3, 2]
    vertices = np.concatenate([triangles, np.full((*triangles.shape[:2], 1), z)], -1)
    return Mesh(vertices, np.broadcast_to([0.0, 0.0, 1.0], vertices.shape).copy(), triangles / tile)


def strip(
    left: np.ndarray,
    right: np.ndarray,
    texcoord_left: np.ndarray | None = None,
    texcoord_right: np.ndarray | None = None,
) -> Mesh:
    """A band between two lines [K, 3] (m) that run side by side; its front is where left is to the left of the way."""
    zero = np.zeros((len(left), 2))
    points = np.concatenate([left, right])
    texture = np.concatenate(
        [zero if texcoord_left is None else texcoord_left, zero if texcoord_right is None else texcoord_right]
    )
    count = len(left)
    i = np.arange(count - 1)
    faces = np.concatenate(
        [np.stack([count + i, count + i + 1, i + 1], -1), np.stack([count + i, i + 1, i], -1)]
    )
    return from_triangles(points, faces, 30.0, texture)


def _unit_box() -> Mesh:
    quads = []
    for axis, (u, v) in enumerate(((1, 2), (0, 2), (0, 1))):
        for sign in (-0.5, 0.5):
            corner = np.zeros((4, 3))
            corner[:, axis] = sign
            corner[:, u], corner[:, v] = np.array([-1, 1, 1, -1]) / 2, np.array([-1, -1, 1, 1]) / 2
            texture = np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]])
            outward = _cross(corner[1] - corner[0], corner[2] - corner[0])[axis] * sign > 0
            quads.append(quad(corner if outward else corner[::-1], texture if outward else texture[::-1]))
    return merge(quads)


_BOX = _unit_box()
