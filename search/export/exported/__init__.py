"""Programs that leave the house with an exported point.  They import nothing of it, and nothing here imports them."""
