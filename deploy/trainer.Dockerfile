# The training image: PyTorch and all; several GB.
#   docker build -f deploy/trainer.Dockerfile -t lookalike-trainer .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/data:/data" lookalike-trainer train ae --data lfw --out /data/faces
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY encoder encoder
COPY trainer trainer
COPY indexer indexer
COPY searcher searcher
COPY deploy deploy
RUN pip install --prefix /installed --no-compile --no-cache-dir --constraint constraints.txt ".[train,faces]"

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 lookalike \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin lookalike \
 && install -d -o lookalike -g lookalike /data
COPY --from=build /installed /usr/local
# Compiled for good, Python's own modules too: by default what is compiled is void where a copy rounds times.
RUN python -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LOOKALIKE_DATA=/data LOOKALIKE_STORE=/data/store LOOKALIKE_CACHE=/data/cache
USER 10001:10001
WORKDIR /data
VOLUME /data
ENTRYPOINT ["lookalike"]
CMD ["train", "--help"]
