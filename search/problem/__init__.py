"""Define what a search searches over and on what: the loaded inputs, the plans that exist, and what they cost."""
