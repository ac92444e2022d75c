"""dualview: tracked 3D boxes and bird's-eye-view maps from the cameras of a vehicle."""

__version__ = "0.1.0"
