"""Heat maps and attention: which parts of an image a model's prediction depends on."""
