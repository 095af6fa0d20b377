"""How one run is scored."""
