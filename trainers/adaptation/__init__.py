"""Adapt a trained supernet to groups of times: a second training per group, and the groups merged into one network."""
