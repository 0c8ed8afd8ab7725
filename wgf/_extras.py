"""Libraries that only a part of the package needs, imported when it is used."""

import importlib
from types import ModuleType


def needed(module: str, extra: str, use: str) -> ModuleType:
    """Import a module of an extra.

    **Arguments:** the module's name; the `extra` of this package that installs it; the `use` that needs it, for the
    message.

    **Raises:** `ImportError` that names the extra if the module is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A library that is there may lack one of its own.
        if error.name not in (module, package):
            raise
        message = f'{use} needs {package}, which is not installed. Run: pip install "wgf-jax[{extra}]"'
        raise ImportError(message, name=package) from error
