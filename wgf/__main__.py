"""`python -m wgf`: the same as the command `wgf`."""

from .cli import main

if __name__ == "__main__":
    main()
