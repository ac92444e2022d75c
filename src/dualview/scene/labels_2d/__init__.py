"""2D labels of recorded images: read, made from 3D labels, imported, attached to a recording."""
