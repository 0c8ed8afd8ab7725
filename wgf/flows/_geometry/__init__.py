"""The geometries in which a model descends: one file and one equation of motion each."""

from .base import AbstractGeometry as AbstractGeometry, Evaluation as Evaluation
from .euclidean import Euclidean as Euclidean
from .finite_volume import FiniteVolume as FiniteVolume
from .lagrangian import Lagrangian as Lagrangian
