"""Where images come from, and what is done to them."""
