"""Hold the version of the package, for its sources as for what is built from them."""

__version__ = "0.2.0"
