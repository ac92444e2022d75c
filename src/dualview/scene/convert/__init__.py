"""Datasets -> recordings. One module for each dataset, and what they share."""
