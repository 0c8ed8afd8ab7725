"""`python -m wgf`, and the command `wgf`: the command line, if its extra is installed."""


def main() -> None:
    """Run the command line.

    **Raises:** `SystemExit` that names the extra if a library of the command line is not installed.
    """
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wgf"):
            raise
        raise SystemExit(
            f'wgf: the command line needs {error.name}, which is not installed. Run: pip install "wgf-jax[cli]"'
        ) from error
    try:
        run()
    except KeyboardInterrupt:
        # Before and after the run itself. 128 plus the number of the signal, as shells report it.
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
