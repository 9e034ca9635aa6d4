"""One training function for each kind of model."""
