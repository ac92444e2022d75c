"""Synthetic drives: worlds of streets and traffic, seen by cameras and a LiDAR, written as recordings. See docs/synthetic_drives.md."""
