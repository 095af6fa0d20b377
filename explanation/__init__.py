"""Where in an image the evidence lies."""
