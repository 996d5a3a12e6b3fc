"""Import DiTTransformer2DModels of diffusers as supernets, and export supernets as such."""
