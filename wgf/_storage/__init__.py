"""Files: solutions without pickle, and files that are whole at any time."""
