"""Score images: FID, KID, precision and recall, and the features that they are computed on."""
