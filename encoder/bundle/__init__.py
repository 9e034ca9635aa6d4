"""Models on disk: reading, checking and writing bundles, and the fitted parts they hold."""
