"""A sweep of what nobody should give the scripts: see `__main__`."""
