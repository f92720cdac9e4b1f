"""The Dockerfile, built by hand among stand-ins: no daemon is needed.

CI builds it with Docker.
"""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess

import checkouts
import pytest

ROOT = checkouts.ROOT
TEXT = (ROOT / 'Dockerfile').read_text()
HOME = '/home/user/mtf_conv'


def _instructions():
  """Returns a list of (word, rest) for each stage, and what each is from."""
  text = re.sub(r'^#.*\n', '', TEXT, flags=re.M).replace('\\\n', ' ')
  stages, bases = {}, {}
  for word, rest in re.findall(r'^([A-Z]+) +(.*)$', text, re.M):
    if word == 'FROM':
      base, name = re.fullmatch(r'(\S+) AS (\S+)', rest).groups()
      stages[name], bases[name] = [], base
    else:
      stages[name].append((word, rest))
  return stages, bases


STAGES, BASES = _instructions()


def _all_of(target):
  """Lists the instructions of a target and of what it is from."""
  if target not in STAGES:
    return []
  return _all_of(BASES[target]) + STAGES[target]


def _is_ignored(path):
  """Whether .dockerignore has the path, relative to ROOT, or a folder of it."""
  patterns = [line for line in (ROOT / '.dockerignore').read_text().splitlines()
              if line and not line.startswith('#')]
  parts = path.split('/')
  parents = ['/'.join(parts[:n + 1]) for n in range(len(parts))]
  return any(
      fnmatch.fnmatchcase(parent.rsplit('/', 1)[-1], pattern[3:])
      if pattern.startswith('**/') else parent == pattern
      for pattern in patterns for parent in parents)


class Image:
  """A target, built in a folder from what it says."""

  def __init__(self, target, folder):
    self.checkout = checkouts.Checkout(folder)
    self.root = folder / 'image'
    self.root.mkdir()
    self.environment, self.user, self.command = {}, 'root', None
    self.checkout.add('python3.11')
    for name in 'sed', 'useradd', 'install':
      (self.checkout.tools / name).symlink_to(
          shutil.which(name) if name == 'sed' else shutil.which('true'))
    for word, rest in _all_of(target):
      getattr(self, f'_{word.lower()}')(rest)

  def _workdir(self, rest):
    assert rest == HOME

  def _env(self, rest):
    for setting in rest.split():
      name, value = setting.split('=')
      value = value.replace(HOME, str(self.root))
      self.environment[name] = value.replace('$PATH', str(self.checkout.tools))

  def _run(self, rest):
    result = subprocess.run(
        ['bash', '-c', rest], cwd=self.root, text=True, capture_output=True,
        env={'PATH': str(self.checkout.tools), 'BREAK': '/none',
             'CALLS': str(self.checkout.calls), **self.environment})
    assert result.returncode == 0, result.stderr
    return result.stderr

  def _copy(self, rest):
    owner, *sources, target = rest.split()
    assert owner == f'--chown={self.user}' and target.endswith(('/', '.'))
    for source in sources:
      if source == '.':
        shutil.copytree(ROOT, self.root, dirs_exist_ok=True, ignore=_ignore)
        continue
      assert (ROOT / source).is_file() and not _is_ignored(source), source
      (self.root / target).mkdir(exist_ok=True)
      shutil.copy(ROOT / source, self.root / target)

  def _user(self, rest):
    self.user = rest

  def _cmd(self, rest):
    self.command = json.loads(rest)


def _ignore(folder, names):
  prefix = '' if folder == str(ROOT) else f'{folder[len(str(ROOT)) + 1:]}/'
  return [name for name in names if _is_ignored(prefix + name)]


@pytest.mark.parametrize('target', ['cpu', 'gpu'])
def test_it_installs_once_and_starts_the_quick_start(target, tmp_path):
  image = Image(target, tmp_path)
  lock = (ROOT / 'requirements.lock').read_text()
  versions = {name: re.search(f'^{name}==.*$', lock, re.M)[0]
              for name in ('setuptools', 'wheel', 'tensorflow')}
  install = 'python -m pip install -qq'
  called = image.checkout.called()
  assert called[:4] == [
      f'python3.11 -m venv {image.root}/.venv',
      f'{install} --no-deps {versions["setuptools"]} {versions["wheel"]}',
      f'{install} --no-deps --no-build-isolation -r '
      f'{image.root}/requirements.lock',
      f'{install} --no-deps --no-build-isolation -e {image.root}']
  assert called[4:] == ([] if target == 'cpu' else [
      f'{install} -c requirements.lock '
      + versions['tensorflow'].replace('==', '[and-cuda]==')])
  assert image.user == 'user'
  # What lies there now is what was installed, and all that git has is there.
  image.checkout.calls.unlink()
  assert image._run(shlex.join(image.command)) == ''
  assert image.checkout.called() == [
      'python -m mtf_conv.commands.quickstart']
  for name in ('gin/models', 'tasks/demo.py', 'mtf_conv/t5_main.py', 'tests',
               'docs/results', '.github/workflows', 'README.md'):
    assert (image.root / name).exists(), name
  assert not (image.root / '.git').exists()


def test_the_workflow_builds_both():
  text = (ROOT / '.github' / 'workflows' / 'test.yml').read_text()
  assert set(re.findall(r'docker build --target=(\w+)', text)) == {
      'cpu', 'gpu'} <= set(STAGES)
  assert list(STAGES)[-1] == 'cpu'  # What is built when none is named.


def test_packages_come_from_where_the_machine_says():
  assert '://' not in TEXT
  pip, = re.findall(r'-m pip install (.*) \\$', TEXT, re.M)
  assert pip.split() == ['-qq', '-c', 'requirements.lock']


def test_docker_ignores_what_git_ignores():
  for line in (ROOT / '.gitignore').read_text().splitlines():
    path = line.strip('/').replace('*', 'x')
    assert _is_ignored(path), line
    if not line.startswith(('/', '.venv', '.uv')):
      assert _is_ignored(f'docs/{path}/file'), line
  assert _is_ignored('.git/config') and not _is_ignored('.github/workflows')
