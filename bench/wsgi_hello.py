"""The smallest WSGI application; what is measured is what its server costs."""


def application(environ, start_response):
    """Answers every request with the same few bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world\n"]
