"""How people run it: the lookalike command."""
