"""How objects look: in one line, as tables in notebooks, and as datasets of xarray."""
