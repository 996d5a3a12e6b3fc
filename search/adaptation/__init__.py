"""What `stepfront adapt` does: a second training per group of times, and the run that comes out of it."""
