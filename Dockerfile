# The image: a builder that compiles the core into a wheel, and a runtime without a compiler.
FROM debian:trixie-slim AS builder

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
 && update-ca-certificates \
 && rm -rf /var/lib/apt/lists/*

ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN python3 -m venv /opt/build && /opt/build/bin/pip install -q 'setuptools>=77' wheel 'cffi>=2.0'

COPY pyproject.toml setup.py MANIFEST.in README.md /src/
COPY appserver /src/appserver
# A compiled cffi module needs _cffi_backend alone; the package cffi and pycparser are for compiling it.
RUN cd /src && /opt/build/bin/pip wheel -q --no-build-isolation --no-deps -w /wheels . \
 && /opt/build/bin/pip install -q --target /opt/cherokee-app --no-compile /wheels/*.whl \
 && find /opt/cherokee-app -name '*.so' -exec strip --strip-unneeded {} + \
 && rm -rf /opt/cherokee-app/bin /opt/cherokee-app/pycparser /opt/cherokee-app/cffi \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/cherokee-app


FROM debian:trixie-slim

LABEL org.opencontainers.image.title="cherokee-app" \
      org.opencontainers.image.description="One server for static files, Python handlers and CGI programs" \
      org.opencontainers.image.version="0.1.0"

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc/* /usr/share/man/*

COPY --from=builder /opt/cherokee-app /opt/cherokee-app
COPY deploy/cherokee-app /usr/local/bin/cherokee-app
COPY deploy/www /srv/www
COPY deploy/cgi-bin /srv/cgi-bin
COPY handlers /srv/handlers

# Anybody may run it: nothing below is written to, and ports below 1024 need no right inside a container network of its own.
RUN chmod 755 /usr/local/bin/cherokee-app /srv/cgi-bin/* \
 && install -d -m 755 /etc/cherokee-app

ENV CHEROKEE_LISTEN=0.0.0.0:80 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER www-data
WORKDIR /srv
EXPOSE 80
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["cherokee-app", "health"]
ENTRYPOINT ["cherokee-app"]
CMD ["serve"]
