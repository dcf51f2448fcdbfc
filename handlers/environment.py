"""A WSGI application (PEP 3333): what Flask, Django and others are too. It lists what the server tells it.

With a framework this file would be as short as:

    from flask import Flask
    application = Flask(__name__)
"""


def application(environ, start_response):
    lines = [f"{name} = {value}\n" for name, value in sorted(environ.items()) if isinstance(value, str)]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return ["".join(lines).encode("utf-8")]
