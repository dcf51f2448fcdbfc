#!/bin/sh
# A CGI program: prints what the server tells it about the request (RFC 3875).
printf 'Content-Type: text/plain; charset=utf-8\r\n\r\n'
printf 'Hello from a shell script, run for %s.\n\n' "$REMOTE_ADDR"
env | sort
