"""Charts, and the Python API beside them."""
