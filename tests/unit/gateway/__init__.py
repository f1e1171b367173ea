"""Unit tests of imd.gateway."""
