# The quick start in a container:
#
#   docker build -t mtf_conv .        (--target=gpu: with CUDA and cuDNN)
#   docker run --name quickstart mtf_conv
#   docker cp quickstart:/home/user/mtf_conv/quickstart_runs .
#   docker run --rm -it mtf_conv bash (with mtf_conv and t5_mesh_conv)
#
# run_scripts/environment.sh installs, as it does outside: the versions of
# requirements.lock.

# What changes seldom comes first: the layer of 3 GB is made anew when a lock or
# setup.py changes, not when the code does.
FROM python:3.11-slim-bookworm AS packages
RUN useradd --create-home user \
  && install --directory --owner=user /home/user/mtf_conv
USER user
WORKDIR /home/user/mtf_conv
ENV PIP_NO_CACHE_DIR=1 PATH=/home/user/mtf_conv/.venv/bin:$PATH
COPY --chown=user requirements.lock requirements-py312.lock setup.py pyproject.toml ./
COPY --chown=user run_scripts/environment.sh run_scripts/
COPY --chown=user mtf_conv/__init__.py mtf_conv/
RUN mkdir gin tasks \
  && bash -c 'source run_scripts/environment.sh || { cat .venv.log; exit 1; }'
CMD ["run_scripts/quickstart.sh"]

# TensorFlow names their versions. The machine has the driver.
FROM packages AS cuda
RUN python -m pip install -qq -c requirements.lock \
  "$(sed -n 's/^tensorflow==/tensorflow[and-cuda]==/p' requirements.lock)"

FROM cuda AS gpu
COPY --chown=user . .

FROM packages AS cpu
COPY --chown=user . .
