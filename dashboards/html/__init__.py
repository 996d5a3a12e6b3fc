"""Write sections as one HTML page: layout, style and script, tables and figures in it."""
