#!/usr/bin/env bash
# Builds the wheel and the source distribution into dist/, and tries the wheel,
# without a lock, in a fresh environment of each Python:
#
#   run_scripts/release.sh                every Python 3.9 to 3.13 that is there
#   run_scripts/release.sh python3.12     this one; a path will do
#
# What pip's resolver chooses for it is then in dist/requirements-3.12.txt, and
# the wheel has trained two steps with it. An environment has 3 to 6 GB and goes
# again; KEEP=1 keeps them, in build/release.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=functions.sh source-path=SCRIPTDIR
source run_scripts/functions.sh
help_with /dev/null "$@"

pythons=("$@")
if [[ $# -eq 0 ]]; then
  for python in python3.{9,10,11,12,13}; do
    # pyenv has shims for versions that are not there.
    ! "$python" -c '' 2>/dev/null || pythons+=("$python")
  done
fi
[[ ${#pythons[@]} -gt 0 ]] || fail 'there is no Python 3.9 to 3.13'

version="$(sed -n "s/^__version__ = '\(.*\)'/\1/p" mtf_conv/__init__.py)"
grep -q "^## $version\b" CHANGELOG.md || fail "CHANGELOG.md has no $version"
grep -q "^version: $version$" CITATION.cff || fail "CITATION.cff is not $version"

work="$PWD/build/release"
export PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf -- "$work" "dist/mtf_conv-$version"*
"${pythons[0]}" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q build
# The wheel is made from the source distribution: it is whole.
"$work/tools/bin/python" -m build --outdir dist . >/dev/null
wheel="$PWD/dist/mtf_conv-$version-py3-none-any.whl"

# try PYTHON VERSION: installs the wheel and trains two steps, away from here.
try() {
  local bin="$work/$2/bin"
  "$1" -m venv "$work/$2" &&
    "$bin/python" -m pip install -q "$wheel" &&
    "$bin/python" -m pip freeze --exclude mtf_conv \
      >"dist/requirements-$2.txt" &&
    cd "$work" &&
    "$bin/t5_mesh_conv" "--model_dir=$work/$2/run" \
      --gin_file=models/lightconv.tiny.gin \
      --gin_file=runs/demo_pretrain.gin --gin_file=hardware/cpu.gin \
      --gin_param='utils.run.train_steps = 2' &&
    "$bin/mtf_conv" list >/dev/null
}

failed=0
for python in "${pythons[@]}"; do
  number="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  echo "Python $number: pip resolves and installs"
  if (try "$python" "$number"); then
    echo "Python $number: works"
  else
    echo "Python $number: FAILED" >&2
    failed=1
  fi
  [[ -n "${KEEP:-}" ]] || rm -rf -- "${work:?}/$number"
done
ls -l dist
exit "$failed"
