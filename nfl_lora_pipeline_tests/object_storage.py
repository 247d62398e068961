"""S3 on this machine: moto's server in a process of its own, for tests and benchmarks that have no other."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

NEEDED = ("moto", "flask", "s3fs")
# One request at a time: S3 looks and writes in one step, and moto, left alone, lets two writers look before either writes.
SERVER = """
import os, sys, threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

application, alone = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with alone:
        return [b"".join(application(environ, start_response))]

class Silent(MotoRequestHandler):
    def log_request(self, *_):
        pass

def end_with_whoever_started_this():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=end_with_whoever_started_this, daemon=True).start()
server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Silent)
print(server.server_port, flush=True)
server.serve_forever()
"""


def lacking() -> str:
    """The packages that are missing, in words; empty where there is none."""
    return ", ".join(name for name in NEEDED if importlib.util.find_spec(name) is None)


@contextmanager
def object_storage(bucket: str) -> Iterator[dict[str, str]]:
    """The environment variables by which an empty bucket is found, for as long as the block runs."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            urlopen(Request(f"{address}/{bucket}", data=b"", method="PUT"), timeout=30).close()
            yield {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }
        finally:
            server.kill()
