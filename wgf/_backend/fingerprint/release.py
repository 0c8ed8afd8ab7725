"""Where code comes from: a package of a known release, or the user's own files."""

import functools
import hashlib
import importlib.util
import os
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import NamedTuple

_PROJECT = __name__.partition(".")[0]
_STANDARD = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}


class Release(NamedTuple):
    """A package, and which of its releases it is; None for the standard library, whose functions keep their meaning."""

    package: str
    version: str | None


def release(module: str) -> Release | None:
    """The release that a module of this name belongs to; None if its code is the user's own and may change any time."""
    package = module.partition(".")[0]
    if package == _PROJECT:
        return Release(package, digest_of_project())
    if package in ("", "__main__", "__mp_main__"):
        return None
    file = _file(module, package)
    if file is None:
        return Release("python", None) if package in sys.stdlib_module_names else None
    return _release_of(package, file)


@functools.cache
def _release_of(package: str, file: str) -> Release | None:
    if _INSTALLED & set(Path(file).parts):
        version = _version(package)
        return None if version is None else Release(package, version)
    if any(os.path.realpath(file).startswith(folder + os.sep) for folder in _STANDARD):
        return Release("python", None)
    if file.endswith(tuple(EXTENSION_SUFFIXES)):
        return Release(Path(file).name, digest_of_files(Path(file)))
    return None


def _file(module: str, package: str) -> str | None:
    """The file of a module, or the folder of a package that has none; nothing is imported."""
    found = sys.modules.get(module) or sys.modules.get(package)
    if found is not None:
        return getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), None)
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    return spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)


def _version(package: str) -> str | None:
    """The version of an installed package, and a digest of its sources as its installer noted them.

    A package that is built and installed anew after each edit may keep its version.
    """
    found = _distributions(package)
    if not found:
        return None
    files = [(str(file), file.hash.value) for each in found for file in each.files or () if file.hash is not None]
    sources = sorted(file for file in files if file[0].endswith(".py"))
    return f"{found[0].version} {hashlib.sha256(repr(sources).encode()).hexdigest()[:16]}"


def _distributions(package: str) -> list[Distribution]:
    """What was installed to provide a package: mostly one of the same name, which is found faster."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        found = None
    if found is not None and any(file.parts[0] in (package, f"{package}.py") for file in found.files or ()):
        return [found]
    return [distribution(name) for name in sorted(set(_providers().get(package, ())))]


_providers = functools.cache(packages_distributions)


@functools.cache
def digest_of_project() -> str:
    """Digest this library's sources: it may be a checkout, whose version stays while its code changes."""
    root = Path(__file__).parents[2]
    return digest_of_files(*sorted(root.rglob("*.py")))


def digest_of_files(*files: Path) -> str:
    """Digest the names and the contents of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
