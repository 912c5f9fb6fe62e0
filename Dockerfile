# tickstock without a database: it connects to the one that its settings name. See docker-compose.yml.
FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY LICENSE README.md pyproject.toml ./
COPY sql sql
COPY tickstock tickstock
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim-trixie
ENV PYTHONUNBUFFERED=1
# A new volume mounted on this folder takes over its owner.
ENV TICKSTOCK_DATA_DIR=/var/lib/tickstock
RUN useradd --system --no-create-home --shell /usr/sbin/nologin tickstock && \
    install --directory --owner tickstock --group tickstock "$TICKSTOCK_DATA_DIR"
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt /wheels/*.whl
USER tickstock
ENTRYPOINT ["tickstock"]
