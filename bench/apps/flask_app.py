"""The smallest Flask application."""

from flask import Flask

application = Flask(__name__)


@application.get("/")
def hello() -> str:
    """The same few bytes for everybody."""
    return "Hello, world\n"
