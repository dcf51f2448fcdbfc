#!/usr/bin/env python3
"""A CGI program in Python: prints the fields of a form, wherever they came from.

curl 'localhost:8080/cgi-bin/form.py?color=cherry'
curl localhost:8080/cgi-bin/form.py -d color=cherry
"""

import os
import sys
from urllib.parse import parse_qsl


def read_form():
    """A POST has its fields in the body, which is as long as CONTENT_LENGTH says; everything else in the query."""
    if os.environ["REQUEST_METHOD"] != "POST":
        return os.environ.get("QUERY_STRING", "")
    return sys.stdin.buffer.read(int(os.environ.get("CONTENT_LENGTH") or 0)).decode("ascii", "replace")


print("Content-Type: text/plain; charset=utf-8")
print()
print(f"Hello from Python {sys.version.split()[0]}, run for this request alone.")
for name, value in parse_qsl(read_form(), keep_blank_values=True):
    print(f"{name!a} = {value!a}")
