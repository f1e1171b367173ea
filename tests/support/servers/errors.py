"""The error of servers."""


class ServerError(Exception):
    """A server is not installed, did not answer in time, or ended by itself; the text has its log's tail."""
