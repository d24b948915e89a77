# One image for every process of Hostler. Build: docker build -t hostler .
# Not run in our tests: no image can be pulled there. tests/unit/test_packaging.py checks what can be checked without.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /opt/hostler
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# the dependencies change rarely: a layer of their own
COPY requirements.lock ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements.lock
COPY setup.cfg pyproject.toml README.md ./
COPY app app
COPY workers workers
COPY hostler hostler
COPY migrations migrations
# what only tests and linters need stays out of the image (the extra "dev" of setup.cfg)
RUN .venv/bin/pip install --no-deps --no-build-isolation --editable . \
    && .venv/bin/pip uninstall --yes fakeredis hypothesis import-linter mypy openai pytest pytest-timeout qdrant-client ruff schemathesis

FROM ${PYTHON_IMAGE}
# tini reaps what engines leave behind; libgomp1 is what llama.cpp links to
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/hostler --shell /usr/sbin/nologin hostler \
    && install -d -m 0700 -o hostler -g hostler /var/lib/hostler
COPY --from=build /opt/hostler /opt/hostler
ENV PATH=/opt/hostler/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOSTLER_STATE_DIR=/var/lib/hostler
WORKDIR /opt/hostler
USER hostler
VOLUME /var/lib/hostler
EXPOSE 8080
# of the gateway, which asks web; the image runs all when nothing else is said, and compose replaces it for the others
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=3)"]
ENTRYPOINT ["tini", "--"]
CMD ["hostler", "up", "--host", "0.0.0.0", "--port", "8080"]
