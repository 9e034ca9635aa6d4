"""Public data sets: LFW, MNIST, sample faces, and the downloads they need."""
