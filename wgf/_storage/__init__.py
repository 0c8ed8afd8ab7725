"""Files: solutions without pickle, files that are whole at any time, folders that one process uses at a time."""
