# shellcheck shell=bash
# Makes .venv at the root of the repository when it is first needed, and
# activates it. The scripts beside it source this file; so can you:
#
#   source run_scripts/environment.sh
#
# .venv holds an editable mtf_conv and the versions of requirements.lock, on
# Python 3.12 and 3.13 those of requirements-py312.lock. It is made by the first
# Python 3.11, 3.10, 3.9, 3.12 or 3.13 that has venv and pip, else by uv, which
# brings its own Python. Where uv is not there either, the pip of any Python 3
# fetches it into .uv. .venv is made anew when a file that describes it has
# changed, when the repository has moved, and when making it was interrupted.
# When it cannot be made, .venv.log has all that pip or uv said of it.
#
# MTF_CONV_PYTHON names another Python than the first, such as python3.13.
# With MTF_CONV_SYSTEM_TENSORFLOW=1 it takes TensorFlow from the Python that
# makes it, which is 3.9 to 3.11: a TPU VM has one that knows its TPU.

# Prints the first Python that fits. Each has to run to be asked: pyenv has
# shims for versions that are not there, and a Debian without python3-venv has
# the module venv, but no ensurepip.
_mtf_conv_find_python() {
  local python last='(3, 13)'
  local candidates=(python3.{11,10,9,12,13} python3 python)
  [[ -z "${MTF_CONV_SYSTEM_TENSORFLOW:-}" ]] || last='(3, 11)'
  [[ -z "${MTF_CONV_PYTHON:-}" ]] || candidates=("$MTF_CONV_PYTHON")
  for python in "${candidates[@]}"; do
    if "$python" -c "
import ensurepip, importlib.util, sys, venv
sys.exit(not (3, 9) <= sys.version_info[:2] <= $last
         or not all(map(importlib.util.find_spec, sys.argv[1:])))" \
      ${MTF_CONV_SYSTEM_TENSORFLOW:+tensorflow} >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
}

# Prints where uv is; fetches it when it is not there and a pip is.
_mtf_conv_find_uv() {
  local python folder="$1/.uv"
  if command -v uv; then
    return
  fi
  for python in python3 python; do
    if [[ ! -x "$folder/bin/uv" ]] &&
      "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3,))' \
        >/dev/null 2>&1; then
      echo "Installing uv into $folder: it brings a Python that fits" >&2
      "$python" -m pip install -qq --target "$folder" uv >"$1/.venv.log" 2>&1
    fi
  done
  [[ ! -x "$folder/bin/uv" ]] || echo "$folder/bin/uv"
}

# Prints all that .venv depends on: the path too, since a venv cannot be moved.
# In the same order in any locale.
_mtf_conv_state() {
  echo "$1"
  cat "$1"/requirements{-py312,}.lock "$1/setup.py" "$1/pyproject.toml"
}

# Last written, `installed` says that the rest is whole.
_mtf_conv_is_installed() {
  [[ -f "$1/.venv/installed" ]] &&
    [[ "$(<"$1/.venv/installed")" == "$(_mtf_conv_state "$1")" ]] &&
    "$1/.venv/bin/python" -c '' 2>/dev/null
}

_mtf_conv_install() {
  local root="$1" python uv='' install lock="$1/requirements.lock"
  local log="$1/.venv.log" line why=''
  local -x VIRTUAL_ENV="$root/.venv" PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
  python="$(_mtf_conv_find_python)"
  if [[ -n "$python" ]]; then
    install=("$VIRTUAL_ENV/bin/python" -m pip install -qq --no-deps)
  elif [[ -n "${MTF_CONV_SYSTEM_TENSORFLOW:-}" ]]; then
    echo 'mtf_conv needs a Python 3.9, 3.10 or 3.11 with venv, pip and' \
      'TensorFlow here.' >&2
    return 1
  elif [[ -n "${MTF_CONV_PYTHON:-}" ]]; then
    echo "MTF_CONV_PYTHON (=$MTF_CONV_PYTHON) must be a Python 3.9 to 3.13" \
      'with venv and pip; without it the first that fits is taken.' >&2
    return 1
  else
    uv="$(_mtf_conv_find_uv "$root")"
    if [[ -z "$uv" ]]; then
      echo 'mtf_conv needs Python 3.9 to 3.13 with venv and pip, or uv: install' \
        'one (Debian, Ubuntu: apt install python3-venv; any system: uv) and try' \
        'again.' >&2
      return 1
    fi
    install=("$uv" pip install -q --no-deps)
  fi
  echo "Installing mtf_conv into $VIRTUAL_ENV (about 3 GB, once)" >&2
  rm -rf -- "$VIRTUAL_ENV/installed" "$VIRTUAL_ENV"
  # What builds comes first, so that building fetches nothing of its own choice.
  if ! {
    if [[ -n "$python" ]]; then
      "$python" -m venv \
        ${MTF_CONV_SYSTEM_TENSORFLOW:+--system-site-packages} "$VIRTUAL_ENV"
    else
      # One that is there without venv or pip, else the best tested.
      python="$("$uv" python find --no-project '>=3.9,<3.14' 2>/dev/null)"
      "$uv" venv -q --no-project --python "${python:-3.11}" "$VIRTUAL_ENV"
    fi &&
      if "$VIRTUAL_ENV/bin/python" -c 'import sys
sys.exit(sys.version_info < (3, 12))'; then
        lock="$root/requirements-py312.lock"
      fi &&
      if [[ -n "${MTF_CONV_SYSTEM_TENSORFLOW:-}" ]]; then
        grep -v '^tensorflow==' "$lock" >"$VIRTUAL_ENV/requirements.lock"
        lock="$VIRTUAL_ENV/requirements.lock"
      fi &&
      "${install[@]}" "$(grep '^setuptools==' "$lock")" \
        "$(grep '^wheel==' "$lock")" &&
      "${install[@]}" --no-build-isolation -r "$lock" &&
      "${install[@]}" --no-build-isolation -e "$root" &&
      _mtf_conv_state "$root" >"$VIRTUAL_ENV/installed"
  } >"$log" 2>&1; then
    while IFS= read -r line; do
      [[ -z "$line" ]] || why="$line"
    done <"$log"
    echo "The installation failed (${why:-without a word}): the same command" \
      'tries again. Is there a network, and does https_proxy name its proxy?' \
      "All that was said: $log" >&2
    return 1
  fi
  rm -f -- "$log"
}

# Of two scripts started at once, the second waits and finds the work done.
_mtf_conv_install_once() (
  lock="$1/.venv.lock"
  if command -v flock >/dev/null; then
    # Ends with the processes that hold it, however they end.
    exec 9>"$lock"
    flock 9
  else
    [[ ! -e "$lock" ]] ||
      echo "Waiting for another installation; if there is none: rmdir $lock" >&2
    until mkdir "$lock" 2>/dev/null; do sleep 1; done
    trap 'rmdir "$lock"' EXIT
  fi
  _mtf_conv_is_installed "$1" || _mtf_conv_install "$1"
)

_mtf_conv_environment() {
  local root
  root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
  _mtf_conv_is_installed "$root" || _mtf_conv_install_once "$root" || return
  # shellcheck source=/dev/null
  source "$root/.venv/bin/activate"
}

_mtf_conv_environment
