"""Import models of other projects as supernets, and export supernets to their formats."""
