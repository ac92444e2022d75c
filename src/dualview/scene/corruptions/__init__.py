"""The eight camera corruptions of RoboBEV (nuScenes-C): Xie et al. 2023, arXiv 2304.06719.

`catalogue.py` has names, severities and parameters, `pixels.py` and `fields.py` what each does to one image,
`corruption.py` decides what happens to which camera at which instant, `encoded.py` and `recording.py` carry that to
image messages and whole recordings. This is an implementation of our own from the published parameters.

The benchmark corrupts 1600 px wide images. Elsewhere, lengths in pixels and noise per pixel are those that such an
image would have after it was resized, so that a corruption means the same to a network whatever the recording's size. (Fog
but nearly: its field is as wide as the next power of two.)
"""
