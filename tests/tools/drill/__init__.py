"""Drills: clients that come and go on a real cluster, seeded faults, and the whole history checked."""
