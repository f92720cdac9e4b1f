#!/usr/bin/env bash
# Shows that T5's own t5_mesh_transformer, unmodified, does what t5_mesh_conv
# does: in an environment with TensorFlow 2.12 and PyTorch, which is made from
# nothing, it trains, evaluates and decodes a LightConv model, gives the losses
# of t5_mesh_conv, and each reads the other's checkpoints.
#
#   run_scripts/stock_binary.sh
#
#   STOCK_VENV   the environment, kept and used again (.venv-stock)
#   TORCH        what pip installs for PyTorch (torch==2.13.0). T5 imports it
#                and does not use it here: any version does. On Linux pip takes
#                the build for GPUs, several GB, unless it is told where
#                PyTorch's builds for CPUs are (PIP_EXTRA_INDEX_URL).
#
# Needs Python 3.11. Arguments go to pytest.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
lock=run_scripts/stock_binary.lock
venv="${STOCK_VENV:-.venv-stock}"
torch="${TORCH:-torch==2.13.0}"
state="$torch $(cat "$lock" setup.py)"
if [[ ! -f "$venv/installed" || "$(<"$venv/installed")" != "$state" ]]; then
  echo "Installing T5 on TensorFlow 2.12 into $venv (about 4 GB, once)" >&2
  rm -rf -- "$venv"
  python3.11 -m venv "$venv"
  install=("$venv/bin/python" -m pip install -qq --disable-pip-version-check)
  # What builds comes first, so that building fetches nothing of its own choice.
  "${install[@]}" --no-deps "$(grep '^setuptools==' "$lock")" \
    "$(grep '^wheel==' "$lock")"
  "${install[@]}" --no-deps --no-build-isolation -r "$lock"
  # With what it depends on, in the versions that are there.
  "${install[@]}" -c "$lock" "$torch"
  "${install[@]}" --no-deps --no-build-isolation -e .
  echo "$state" >"$venv/installed"
fi

venv="$(cd -- "$venv" && pwd)"
# shellcheck source=environment.sh source-path=SCRIPTDIR
source run_scripts/environment.sh
RUN_SLOW=1 MTF_CONV_STOCK="$venv" exec python -m pytest -q -rP \
  tests/stock_binary_test.py "$@"
