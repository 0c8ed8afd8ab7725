"""A flow in segments, driven from the host: segments, checkpoints, interruption, causes of failure."""

from .run import run as run
