"""Learn the times and the coefficients of a sampler from a many-step teacher (LD3 and GS)."""
