# Distill in a container, computing on the processor:
#     docker build -t distill .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" distill train sounds --name rain
# Models and sounds are files in the folder that is mounted at /work.
FROM python:3.13-slim

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY distill ./distill
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[formats]' && distill --help > /dev/null

WORKDIR /work
ENV HOME=/tmp DISTILL_MODELS=/work/models DISTILL_CACHE=/tmp/distill
ENTRYPOINT ["distill"]
CMD ["--help"]
