# The image: a builder that compiles the core into a wheel, and a runtime without a compiler.
FROM debian:trixie-slim AS builder

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
 && update-ca-certificates

ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN python3 -m venv /opt/build && /opt/build/bin/pip install -q 'setuptools>=77' wheel 'cffi>=2.0'

COPY pyproject.toml setup.py MANIFEST.in README.md /src/
COPY appserver /src/appserver
# Of cffi only the compiled backend is needed where nothing is compiled.
RUN cd /src && /opt/build/bin/pip wheel -q --no-build-isolation --no-deps -w /wheels . \
 && /opt/build/bin/pip install -q --target /out/opt/cherokee-app --no-compile /wheels/*.whl \
 && cd /out/opt/cherokee-app && rm -rf bin cffi pycparser \
 && find . -name '*.so' -exec strip --strip-unneeded {} + \
 && python3 -m compileall -q -s /out --invalidation-mode unchecked-hash /out/opt/cherokee-app

# `make image` says the version that the package has; any other one is an error and not a label.
ARG VERSION=unknown
RUN found=$(PYTHONPATH=/out/opt/cherokee-app python3 -c 'import appserver; print(appserver.__version__)') \
 && if [ "$VERSION" != unknown ] && [ "$VERSION" != "$found" ]; then \
        echo "VERSION is $VERSION, but the package says $found" >&2; exit 1; \
    fi

# The demo is served only while nothing is in /srv: it lies elsewhere, so that it never mixes with what is mounted there.
COPY deploy/cherokee-app /out/usr/local/bin/cherokee-app
COPY deploy/www /out/opt/cherokee-app/demo/www
COPY deploy/cgi-bin /out/opt/cherokee-app/demo/cgi-bin
COPY handlers /out/opt/cherokee-app/demo/handlers
# A clone has the modes that its umask left; every user must be able to run this.
RUN chmod -R u=rwX,go=rX /out && chmod 755 /out/usr/local/bin/cherokee-app /out/opt/cherokee-app/demo/cgi-bin/*


FROM debian:trixie-slim

# What handlers and CGI scripts may import stays (legacy-cgi has the modules cgi and cgitb, which Python no longer has);
# the interpreter's own tests and the texts of help() go.
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-legacy-cgi \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf/*-old \
        /usr/share/doc/*python* /usr/share/man/man1/*python* /usr/share/lintian \
        /usr/lib/python3*/test /usr/lib/python3*/pydoc_data /usr/lib/python3*/turtle.py

COPY --from=builder /out /

# For incidents. Like /tmp, because it may run as any user, whose own folder in there has mode 0700.
RUN install -d -m 1777 /var/lib/cherokee-app

ARG VERSION=unknown
LABEL org.opencontainers.image.title="cherokee-app" \
      org.opencontainers.image.description="One server for static files, Python handlers and CGI programs" \
      org.opencontainers.image.version="$VERSION"

# The second for who starts it as root.
ENV CHEROKEE_LISTEN=0.0.0.0:80 \
    CHEROKEE_CGI_USER=www-data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# www-data, by number, because an orchestrator that refuses root cannot look names up. Any other user does as well:
# nothing need be written, and inside a network namespace of its own a container may bind port 80 without a right.
USER 33:33
WORKDIR /opt/cherokee-app/demo
EXPOSE 80
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=15s --retries=3 CMD ["cherokee-app", "health"]
ENTRYPOINT ["cherokee-app"]
CMD ["serve"]
