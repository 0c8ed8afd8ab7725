"""How different colours look, with and without colour blindness."""

import itertools

import numpy as np
from matplotlib.colors import to_rgb

# In linear RGB, at severity 1. Source: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A physiologically-based
# model for simulation of color vision deficiency", IEEE Transactions on Visualization and Computer Graphics 15 (2009).
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
# From linear sRGB to CIE XYZ, with the white of D65 (IEC 61966-2-1).
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    """The linear RGB `[3]` of a colour."""
    part = np.array(to_rgb(colour))
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(colour, sight="normal"):
    """The CIE-Lab coordinates `[3]` that a colour has for one sight."""
    seen = np.clip(SIGHTS[sight] @ linear(colour), 0, 1)
    ratio = (_XYZ @ seen) / _XYZ.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(colours, sight):
    """The two colours that look most alike, after their distance ΔE (CIE 1976)."""
    pairs = itertools.combinations(colours, 2)
    return min((float(np.linalg.norm(lab(one, sight) - lab(other, sight))), one, other) for one, other in pairs)


def contrast(colour):
    """The contrast of a colour against white, from 1 to 21 (WCAG 2)."""
    return 1.05 / (float(_XYZ[1] @ linear(colour)) + 0.05)
