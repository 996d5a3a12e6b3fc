"""Encode images once into the latents of an autoencoder, and decode what a sampler makes of them."""
