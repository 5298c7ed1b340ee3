# For a CPU:   docker build -t afqmc .
#              docker run --rm --user "$(id -u)" -v "$PWD:/work" afqmc run experiment=quickstart tracker=none
# For GPUs:    docker build -t afqmc:cuda --build-arg TORCH=cuda .
#              docker run --rm --user "$(id -u)" -v "$PWD:/work" --gpus all --ipc=host afqmc:cuda run dataset.path=DIR
# A service:   compose.yaml
# The GPU image needs the NVIDIA container toolkit on the host. PyTorch's packages bring the CUDA libraries.
FROM python:3.13-slim

# git: runs record the commit of the directory that they are started in
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH=cpu
COPY . /opt/afqmc
RUN PIP_NO_CACHE_DIR=1 TORCH="$TORCH" sh /opt/afqmc/scripts/setup.sh tables,serve,export \
    && /opt/afqmc/.venv/bin/python -m compileall -q /opt/afqmc/afqmc /opt/afqmc/hydra_plugins

# any user id works, so that the files of a run can belong to the user who starts it
RUN mkdir -m 777 /work /home/user
ENV PATH=/opt/afqmc/.venv/bin:$PATH HOME=/home/user LOGNAME=user
USER 1000
WORKDIR /work
ENTRYPOINT ["afqmc"]
CMD ["--help"]
