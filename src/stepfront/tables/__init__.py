"""Declare, read and write the tables of a search directory; search and dashboards both read them here."""
