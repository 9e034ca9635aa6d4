# The image for work on many machines: reads and writes Parquet, works on Ray; no service, no PyTorch.
#   docker build -f deploy/batch.Dockerfile -t lookalike-batch .
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY encoder encoder
COPY trainer trainer
COPY indexer indexer
COPY searcher searcher
COPY deploy deploy
# A RayJob is submitted to Ray's dashboard, which is in ray[default].
RUN pip install --prefix /installed --no-compile --no-cache-dir --constraint constraints.txt ".[faces,ray]" "ray[default]"

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 lookalike \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin lookalike
COPY --from=build /installed /usr/local
# Compiled for good, Python's own modules too: by default what is compiled is void where a copy rounds times.
RUN python -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib
# Ray writes a token into the home folder, which must be writable.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp LOOKALIKE_CACHE=/tmp/lookalike RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["lookalike"]
CMD ["embed", "--help"]
