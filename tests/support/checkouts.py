"""The repository's scripts among stand-ins for Python, pip and uv."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Stands for a Python that can make a venv and install into it, and for uv:
# writes down what it was asked to do, and takes its time.
STAND_IN = r'''#!/usr/bin/env bash
if [[ "$1 $2" == '-c import sys'* ]]; then  # Is it 3.12 or later?
  [[ -n "${NEW:-}" ]]; exit
fi
if [[ "$1 $2" == '-c import pip'* ]]; then exit "${NO_PIP:-0}"; fi
if [[ "$1" == -c ]]; then exit "${UNFIT:-0}"; fi
echo "${0##*/} $*" >>"$CALLS"
if [[ "$1 $2" == 'python find' ]]; then echo "${FOUND:-}"; exit; fi
if [[ "$*" == *--target*uv && ! -e "$BREAK" ]]; then
  mkdir -p "${@: -2:1}/bin"
  cp "$0" "${@: -2:1}/bin/uv"
fi
if [[ "$*" == *venv* && ! -e "${@: -1}" ]]; then
  sleep 0.3
  mkdir -p "${@: -1}/bin"
  cp "$0" "${@: -1}/bin/python"
  echo "PATH='${@: -1}/bin':\$PATH" >"${@: -1}/bin/activate"
fi
if [[ "$*" == *install* && -e "$BREAK" ]]; then
  printf '%s\n' 'WARNING: Retrying' 'ERROR: nothing fits' '' >&2
  exit 1
fi
'''


class Checkout:
  """The scripts in a folder; only stand-ins and basic tools on the PATH."""

  def __init__(self, folder):
    self.folder = folder
    self.tools = folder / 'tools'
    self.tools.mkdir()
    for name in ('bash', 'cat', 'cp', 'dirname', 'env', 'flock', 'grep',
                 'mkdir', 'rm', 'rmdir', 'sleep'):
      if shutil.which(name):
        (self.tools / name).symlink_to(shutil.which(name))
    self.root = folder / 'a repository'
    shutil.copytree(ROOT / 'run_scripts', self.root / 'run_scripts')
    for name in ('setup.py', 'pyproject.toml'):
      shutil.copy(ROOT / name, self.root)
    for lock in 'requirements.lock', 'requirements-py312.lock':
      (self.root / lock).write_text('setuptools==1\nwheel==2\n')
    self.calls, self.broken = folder / 'calls', folder / 'broken'

  def add(self, name):
    (self.tools / name).write_text(STAND_IN)
    (self.tools / name).chmod(0o755)

  def start(self, *args, **environ):
    self.calls.unlink(missing_ok=True)
    return subprocess.Popen(
        ['bash', self.root / 'run_scripts' / 'quickstart.sh', *args],
        env={'PATH': str(self.tools), 'CALLS': str(self.calls),
             'BREAK': str(self.broken), **environ},
        cwd=self.folder, text=True, stderr=subprocess.PIPE)

  def run(self, *args, **environ):
    """Returns the exit code, and what was said."""
    process = self.start(*args, **environ)
    _, said = process.communicate()
    return process.returncode, said

  def called(self):
    return self.calls.read_text().splitlines() if self.calls.exists() else []

  def installations(self):
    return sum(' -e ' in call for call in self.called())
