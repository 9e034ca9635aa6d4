"""Training data: data sets, splits, batches, augmentation and noise."""
