"""Loss functions and the bound that a VAE maximizes."""
