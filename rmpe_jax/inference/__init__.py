"""`PoseEstimator`: the poses of the people in an image, in one call."""
