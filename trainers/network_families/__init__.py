"""Ship network families beside the U-Net, found by name."""
