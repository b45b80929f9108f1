"""Serves the shop on a free port of 127.0.0.1 and prints the port."""

import os
import sys

shop = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shop")
os.chdir(shop)
sys.path.insert(0, shop)

from werkzeug.serving import make_server  # noqa: E402

from wsgi import application  # noqa: E402

server = make_server("127.0.0.1", 0, application, threaded=False)
print(server.server_port, flush=True)
server.serve_forever()
