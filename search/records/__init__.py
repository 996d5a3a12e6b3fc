"""Read and make what a search directory holds beside its study: settings, tables and the facts of the search."""
