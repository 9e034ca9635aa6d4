"""From a trained network to a bundle with its metrics."""
