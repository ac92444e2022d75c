"""One texture for everything small and coloured: plain colours and a few drawn details (wheels, lattices, stripes).

A mesh that takes its colours from here needs one material and one draw call however many colours it has. Plain colours have constant
texture coordinates, so they never bleed into each other at a distance.
"""

from __future__ import annotations

import cv2
import numpy as np

from dualview.scene.synthetic.meshes import Mesh

SIZE = 1024  # px, square
_CELL = 16  # px, a plain colour
_COLOUR_ROWS = 24  # rows of cells for plain colours, from the top of the picture
_TILE = 160  # px, a drawn detail


Colour = tuple[float, float, float]  # red, green, blue, 0..1


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    red, green, blue = (min(factor * c, 1.0) for c in colour)
    return red, green, blue


class Palette:
    """Hands out texture coordinates for colours; `image` draws the texture once all colours are known."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int, int], int] = {}
        self._tiles: dict[str, np.ndarray] = {}

    def colour(self, rgb: tuple[float, float, float]) -> tuple[float, float]:
        """Texture coordinate of a colour (0..1 each)."""
        red, green, blue = (round(float(np.clip(c, 0, 1)) * 51) * 5 for c in rgb)
        key = (red, green, blue)
        columns = SIZE // _CELL
        index = self._cells.setdefault(key, len(self._cells))
        if index >= columns * _COLOUR_ROWS:
            raise ValueError("the palette is full: use fewer colours")
        return ((index % columns + 0.5) * _CELL / SIZE, (index // columns + 0.5) * _CELL / SIZE)

    def paint(self, mesh: Mesh, rgb: tuple[float, float, float]) -> Mesh:
        """The mesh in one colour."""
        return mesh.with_texcoord(self.colour(rgb))

    def picture(self, mesh: Mesh, name: str, image: np.ndarray) -> Mesh:
        """The mesh with its own 0..1 texture coordinates showing a drawn detail, uint8 [H, W, 3]; the same name is stored once."""
        if name not in self._tiles:
            self._tiles[name] = cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
        index = list(self._tiles).index(name)
        column, row = index % (SIZE // _TILE), index // (SIZE // _TILE)
        low = np.array([column * _TILE, _COLOUR_ROWS * _CELL + row * _TILE]) + 2
        local = np.clip(mesh.texcoords, 0, 1)
        return Mesh(mesh.vertices, mesh.normals, (low + local * (_TILE - 4)) / SIZE)

    def image(self) -> np.ndarray:
        """The texture, uint8 [SIZE, SIZE, 3]."""
        canvas = np.full((SIZE, SIZE, 3), 128, np.uint8)
        columns = SIZE // _CELL
        for rgb, index in self._cells.items():
            row, column = index // columns, index % columns
            canvas[row * _CELL : (row + 1) * _CELL, column * _CELL : (column + 1) * _CELL] = rgb
        for index, tile in enumerate(self._tiles.values()):
            column, row = index % (SIZE // _TILE), index // (SIZE // _TILE)
            top = _COLOUR_ROWS * _CELL + row * _TILE
            canvas[top : top + _TILE, column * _TILE : (column + 1) * _TILE] = tile
        return canvas


def wheel_picture(rim: tuple[int, int, int], spokes: int) -> np.ndarray:
    """A wheel seen from outside: tyre, rim, spokes, hub; uint8 [160, 160, 3]."""
    image = np.full((160, 160, 3), 22, np.uint8)
    cv2.circle(image, (80, 80), 79, (30, 30, 31), -1, cv2.LINE_AA)
    cv2.circle(image, (80, 80), 56, rim, -1, cv2.LINE_AA)
    cv2.circle(image, (80, 80), 51, (38, 38, 40), -1, cv2.LINE_AA)
    for angle in np.arange(spokes) * 2 * np.pi / spokes:
        tip = (int(80 + 53 * np.cos(angle)), int(80 + 53 * np.sin(angle)))
        cv2.line(image, (80, 80), tip, rim, 13 if spokes < 8 else 7, cv2.LINE_AA)
    cv2.circle(image, (80, 80), 15, tuple(int(c * 0.85) for c in rim), -1, cv2.LINE_AA)
    return image
