#!/usr/bin/env bash
# Makes the environment that `mtf_conv bench tpu` compiles in: the TPU's own
# compiler, libtpu, and the JAX that loads it. No TPU is needed, and none is
# looked for. About 1 GB, once.
#
#   run_scripts/tpu_compiler.sh
#
#   TPU_COMPILER_VENV   where it goes (.venv-tpu), and where `mtf_conv bench
#                       tpu` finds it
#
# It is an environment of its own: JAX 0.5.3 needs ml_dtypes 0.4 or later, and
# TensorFlow 2.15 needs 0.3. Linux on x86-64 and Python 3.11 only, since libtpu
# is built for no other machine.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
lock=run_scripts/tpu_compiler.lock
venv="${TPU_COMPILER_VENV:-.venv-tpu}"
machine="$(uname -s) $(uname -m)"
if [[ "$machine" != 'Linux x86_64' ]]; then
  echo "libtpu is built for Linux on x86-64, and this is $machine:" \
    'run it there; the figures of docs/results/tpu need no compiler.' >&2
  exit 1
fi
if [[ -f "$venv/installed" ]] && cmp -s "$lock" "$venv/installed" &&
  "$venv/bin/python" -c '' 2>/dev/null; then
  echo "$venv is there."
  exit
fi
if ! python3.11 -c 'import ensurepip, venv' 2>/dev/null; then
  echo 'run_scripts/tpu_compiler.sh needs a Python 3.11 with venv and pip' \
    '(python3.11).' >&2
  exit 1
fi
echo "Installing the TPU's compiler into $venv (about 1 GB, once)" >&2
rm -rf -- "$venv"
python3.11 -m venv "$venv"
if ! "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
  --no-deps --only-binary :all: -r "$lock" >"$venv/log" 2>&1; then
  echo "The installation failed ($(grep -v '^WARNING' "$venv/log" | tail -n 1)):" \
    "the same command tries again. All that was said: $venv/log" >&2
  exit 1
fi
cp -- "$lock" "$venv/installed"
echo "$venv is made."
