"""Datasets, image files, augmentation and preprocessing."""
