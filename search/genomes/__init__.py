"""Plans as genomes: how they are encoded, and candidates that a search chooses among."""
