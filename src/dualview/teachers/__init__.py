"""Frozen networks that make labels; read in training and label making only."""
