"""Offline depth of recorded images, stored beside the recording, and how relative depth becomes metres."""
