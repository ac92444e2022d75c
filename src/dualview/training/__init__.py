"""Training: recordings -> drives on disk -> clips of frames -> augmentation -> network -> losses ->
checkpoints.
"""
