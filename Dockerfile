# syntax=docker/dockerfile:1
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock ./
# The installer itself, then what a user gets: every archive is checked against the hashes in requirements.lock. What
# only the tests need is left out.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > installer.lock \
 && pip install --no-cache-dir --require-hashes -r installer.lock \
 && python -m venv --without-pip /opt/gapless
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY reconcilers reconcilers
RUN uv pip install --no-cache --python /opt/gapless \
    --constraint requirements.lock --build-constraint requirements.lock ".[kafka,nats,postgres,rabbitmq,sqs]"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/gapless --create-home gapless
COPY --from=build /opt/gapless /opt/gapless
ENV PATH=/opt/gapless/bin:$PATH PYTHONUNBUFFERED=1
USER gapless
# The SQLite ledger and gapless.toml are looked for here.
WORKDIR /var/lib/gapless
VOLUME /var/lib/gapless
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('GAPLESS_PRIVATE__PORT', '8001')}/livez\", timeout=2)"]
CMD ["gapless", "serve"]
