"""How good heat maps are."""
