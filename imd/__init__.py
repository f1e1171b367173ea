"""imd: an instant-messaging daemon."""

__version__ = "0.1.0"
