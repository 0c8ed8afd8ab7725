"""`ProgressBar`: the progress of one solve, on a terminal or in a notebook."""

from typing import Any

import diffrax

from .._bars import bar


class ProgressBar(diffrax.TqdmProgressMeter):
    r"""A bar of tqdm for [`wgf.flow`][]: a widget in a notebook that has `ipywidgets`, else a line of text.

    It shows the share of the time from the first to the last of `taus` that has passed. It works under
    `jit` and `vmap`, where it shows the slowest flow. A solve with a bar is a program of its own, whose numbers are the
    same up to rounding.

    ```python
    solution = wgf.flow(objective, model, taus, progress_meter=wgf.flows.ProgressBar())
    ```

    **Arguments:**

    - `refresh_steps`: the number of steps between two drawings. Each costs a call to the host. Good values: 20; 1 if a
      step takes seconds.
    """

    @staticmethod
    def _init_bar() -> Any:
        # Diffrax asks for its bar here; should it stop asking, its own line of text is shown.
        return bar(True, total=100, unit="%", bar_format="{percentage:3.0f}% |{bar}| [{elapsed}<{remaining}]")
