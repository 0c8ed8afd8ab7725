"""Images: Vision Transformers of growing width and depth, in the mean-field parametrisation."""

from ._config import ImagesConfig as ImagesConfig
from ._result import Curves as Curves, ImagesResult as ImagesResult, Run as Run
from ._run import run as run
from ._training import vision_encoder as vision_encoder, vision_objective as vision_objective
