"""imd: an instant-messaging daemon."""

__version__ = "0.2.0"
