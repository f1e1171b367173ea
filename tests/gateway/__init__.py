"""Tests of the gateway: slots, the table of nodes, and the real HAProxy."""
