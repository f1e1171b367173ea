"""Serves call.html to two pages on this machine: python examples/call.py [PORT]."""

import functools
import http.server
import pathlib
import sys

folder = pathlib.Path(__file__).parent
port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
print(f"http://127.0.0.1:{port}/call.html?node=ws://127.0.0.1:9000/ws&me=alice&peer=bob")
print(f"http://127.0.0.1:{port}/call.html?node=ws://127.0.0.1:9000/ws&me=bob&peer=alice")
http.server.ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()
