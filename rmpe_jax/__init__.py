"""RMPE, Regional Multi-person Pose Estimation (ICCV 2017), complete, in JAX and Flax."""

__version__ = "0.1.0"
