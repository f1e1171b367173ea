"""Routing by user id: which node is a user's home, the table of nodes, and HAProxy kept in step with it."""
