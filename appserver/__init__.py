"""cherokee-app: a web server whose core is C and whose handlers run in supervised processes."""

__version__ = "0.1.0"
