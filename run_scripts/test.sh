#!/usr/bin/env bash
# Checks the style, then runs the tests; arguments go to pytest:
#
#   run_scripts/test.sh                      all, about 10 minutes on 2 cores
#   run_scripts/test.sh tests/conv_test.py   one file
#   RUN_SLOW=1 run_scripts/test.sh           those that take minutes, too
#
# Tests that read real data look for it in $MTF_CONV_DATA, or in shared/data
# beside the repository, and are skipped where it is not.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=environment.sh source-path=SCRIPTDIR
source run_scripts/environment.sh

if [[ -z "${MTF_CONV_DATA:-}" && -d ../shared/data ]]; then
  MTF_CONV_DATA="$(cd ../shared/data && pwd)"
  export MTF_CONV_DATA
fi
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"

ruff check
# All of it on two processes, each file on one of them; a part where it can be
# watched and debugged.
[[ $# -gt 0 ]] || set -- -n 2 --dist worksteal
exec python -m pytest -q --durations=10 "$@"
