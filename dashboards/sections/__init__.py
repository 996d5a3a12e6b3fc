"""Make the sections of the report as HTML, one file per subject; a section without content is ""."""
