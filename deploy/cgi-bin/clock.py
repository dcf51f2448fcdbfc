#!/usr/bin/env python3
# A CGI program in Python: what it prints is the answer. A new process for each request.
import os
import sys
import time

print("Content-Type: text/plain; charset=utf-8")
print()
print("Hello from Python", sys.version.split()[0], "as a CGI program.")
print(
    "It is",
    time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    "and you asked for",
    os.environ["REQUEST_METHOD"],
    os.environ["SCRIPT_NAME"],
)
