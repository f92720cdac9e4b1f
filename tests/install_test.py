"""The package from outside the repository, and the scripts that install it."""

import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import venv
from importlib import metadata

import checkouts
import pytest
import yaml
from packaging import specifiers

import mtf_conv

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _copy_sources(folder):
  for name in ('setup.py', 'pyproject.toml'):
    shutil.copy(ROOT / name, folder)
  for name in ('mtf_conv', 'gin', 'tasks'):
    shutil.copytree(ROOT / name, folder / name,
                    ignore=shutil.ignore_patterns('__pycache__'))


@pytest.fixture(scope='module', params=['wheel', 'editable'])
def installed(request, tmp_path_factory):
  """A venv with mtf_conv: its folder, and where package and gin should be."""
  folder = tmp_path_factory.mktemp(request.param)
  source, environment = folder / 'a repository', folder / 'venv'
  source.mkdir()
  _copy_sources(source)
  venv.create(environment, with_pip=True)
  # What mtf_conv needs comes from here; mtf_conv itself does not, since an
  # editable install lies in a .pth file, which is not followed from another.
  packages = next((environment / 'lib').glob('python*/site-packages'))
  (packages / 'parent.pth').write_text('\n'.join(site.getsitepackages()))
  subprocess.run(
      [environment / 'bin' / 'python', '-m', 'pip', 'install', '-qq',
       '--no-index', '--no-deps', '--no-build-isolation', '--ignore-installed',
       *(['-e'] if request.param == 'editable' else []), source], check=True)
  if request.param == 'editable':
    return environment, source / 'mtf_conv', source / 'gin'
  shutil.rmtree(source)
  return environment, packages / 'mtf_conv', packages / 'mtf_conv' / 'gin'


def test_works_from_any_folder(installed, tmp_path):
  environment, package, gin_folder = installed
  check = '''
import importlib.metadata

import gin
import mtf_conv.tasks
import seqio
from mtf_conv.base import gin_files

print(mtf_conv.__file__)
print(mtf_conv.tasks.__file__)
print(gin_files.gin_folder())
print(gin.__file__)
print('text_span_corruption' in seqio.TaskRegistry.names())
for entry in importlib.metadata.distribution('mtf_conv').entry_points:
  print(entry.name, callable(entry.load()))
'''
  result = subprocess.run(
      [environment / 'bin' / 'python', '-W', 'ignore', '-c', check],
      cwd=tmp_path, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  *paths, gin_config, has_task, first, second = result.stdout.splitlines()
  tasks = package / 'tasks' if gin_folder.parent == package else (
      package.parent / 'tasks')
  assert paths == [str(path) for path in (
      package / '__init__.py', tasks / '__init__.py', gin_folder)]
  assert str(gin_folder) not in gin_config
  assert has_task == 'True'
  assert [first, second] == ['mtf_conv True', 't5_mesh_conv True']


def test_has_every_file(installed):
  _, package, gin_folder = installed
  def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*')
            if path.is_file() and path.suffix != '.pyc'}
  assert names(gin_folder) == names(ROOT / 'gin')
  outside = {f'{name}/{path}' for name in ('gin', 'tasks')
             for path in names(ROOT / name)}
  assert names(package) - outside == names(ROOT / 'mtf_conv')


def test_gin_is_gin_config_at_the_root_of_the_repository():
  result = subprocess.run(
      [sys.executable, '-c', 'import gin; gin.parse_config; print("found")'],
      cwd=ROOT, capture_output=True, text=True)
  assert result.stdout == 'found\n', result.stderr


@pytest.mark.parametrize('lock', ['requirements.lock',
                                  'requirements-py312.lock'])
def test_lock_has_one_of_each(lock):
  names = [line.split('==')[0]
           for line in (ROOT / lock).read_text().splitlines()
           if '==' in line and not line.startswith('#')]
  assert {'tensorflow-datasets', 'seqio', 't5', 'tensorflow'} <= set(names)
  assert not {'tfds-nightly', 'seqio-nightly', 'torch', 'transformers'} & set(
      names)
  # There TensorFlow has Keras 3, which is enough, and the tests show it.
  if lock == 'requirements-py312.lock':
    assert 'keras' in names and 'tf-keras' not in names


def _tool(name):
  """Returns the path of a program that looks at other files than Python's."""
  path = shutil.which(name, path=os.pathsep.join(
      [str(pathlib.Path(sys.executable).parent), os.environ['PATH']]))
  if path is None:
    pytest.skip(f'needs {name}, which pip installs')
  return path


def test_there_is_one_version():
  version = mtf_conv.__version__
  assert metadata.version('mtf_conv') == version
  assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
  assert re.search(rf'^## {re.escape(version)}\b',
                   (ROOT / 'CHANGELOG.md').read_text(), re.M)


def test_the_workflow_tests_every_python():
  text = (ROOT / '.github' / 'workflows' / 'test.yml').read_text()
  jobs = yaml.safe_load(text)['jobs']
  pythons = sorted(sum((jobs[name]['strategy']['matrix']['python']
                        for name in ('all', 'some')), []),
                   key=lambda version: int(version.partition('.')[2]))
  supported = specifiers.SpecifierSet(
      metadata.metadata('mtf_conv')['Requires-Python'])
  assert pythons == [f'3.{minor}' for minor in range(30)
                     if supported.contains(f'3.{minor}')]
  for path in re.findall(r'(?:run_scripts|tests|docs)/\w+\.\w+', text):
    assert (ROOT / path).is_file(), path


def test_the_workflow_is_one_that_github_reads():
  linter = _tool('check-jsonschema')
  result = subprocess.run(
      [linter, '--builtin-schema', 'vendor.github-workflows',
       ROOT / '.github' / 'workflows' / 'test.yml'],
      capture_output=True, text=True)
  assert result.returncode == 0, result.stdout


def test_shell_scripts_are_clean():
  shellcheck = _tool('shellcheck')
  scripts = [*(ROOT / 'run_scripts').rglob('*.sh'), ROOT / '.ci' / 'run']
  result = subprocess.run(
      [shellcheck, '-x', *scripts], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout


@pytest.fixture
def checkout(tmp_path):
  return checkouts.Checkout(tmp_path)


def test_no_python_fits(checkout):
  for name in ('python3.11', 'python3'):
    checkout.add(name)
  code, said = checkout.run(UNFIT='1', NO_PIP='1')
  assert code == 1
  assert said.count('\n') == 1
  assert 'needs Python 3.9 to 3.13' in said
  assert not checkout.called()
  assert not (checkout.root / '.venv').exists()


def test_installs_once(checkout):
  checkout.add('python3.10')
  assert checkout.run('--models=all', 'a b') == (
      0, f'Installing mtf_conv into {checkout.root}/.venv '
      '(about 3 GB, once)\n')
  install = 'python -m pip install -qq --no-deps'
  assert checkout.called() == [
      f'python3.10 -m venv {checkout.root}/.venv',
      f'{install} setuptools==1 wheel==2',
      f'{install} --no-build-isolation -r {checkout.root}/requirements.lock',
      f'{install} --no-build-isolation -e {checkout.root}',
      'python -m mtf_conv.commands.quickstart --models=all a b',
  ]
  assert checkout.run() == (0, '')
  assert checkout.called() == ['python -m mtf_conv.commands.quickstart']


def test_uv_brings_its_own_python(checkout):
  checkout.add('uv')
  assert checkout.run()[0] == 0
  install = 'uv pip install -q --no-deps'
  assert checkout.called() == [
      'uv python find --no-project >=3.9,<3.14',
      f'uv venv -q --no-project --python 3.11 {checkout.root}/.venv',
      f'{install} setuptools==1 wheel==2',
      f'{install} --no-build-isolation -r {checkout.root}/requirements.lock',
      f'{install} --no-build-isolation -e {checkout.root}',
      'python -m mtf_conv.commands.quickstart',
  ]


def test_any_pip_brings_uv(checkout):
  checkout.add('python3')
  code, said = checkout.run(UNFIT='1')
  folder = checkout.root / '.uv'
  assert (code, said) == (0, (
      f'Installing uv into {folder}: it brings a Python that fits\n'
      f'Installing mtf_conv into {checkout.root}/.venv (about 3 GB, once)\n'))
  assert checkout.called()[:3] == [
      f'python3 -m pip install -qq --target {folder} uv',
      'uv python find --no-project >=3.9,<3.14',
      f'uv venv -q --no-project --python 3.11 {checkout.root}/.venv']
  shutil.rmtree(checkout.root / '.venv')
  assert checkout.run(UNFIT='1')[0] == 0
  assert not any('--target' in call for call in checkout.called())


def test_uv_takes_a_python_without_venv(checkout):
  checkout.add('uv')
  assert checkout.run(FOUND='/usr/bin/python3.12')[0] == 0
  assert checkout.called()[1] == (
      'uv venv -q --no-project --python /usr/bin/python3.12 '
      f'{checkout.root}/.venv')


def test_a_python_can_be_named(checkout):
  for name in 'python3.11', 'python3.13':
    checkout.add(name)
  assert checkout.run(MTF_CONV_PYTHON='python3.13')[0] == 0
  assert checkout.called()[0].startswith('python3.13 -m venv')


def test_a_python_that_is_named_and_does_not_fit(checkout):
  checkout.add('uv')
  for name in 'python3.8', 'no_python':
    code, said = checkout.run(MTF_CONV_PYTHON=name, UNFIT='1')
    assert (code, said) == (1, (
        f'MTF_CONV_PYTHON (={name}) must be a Python 3.9 to 3.13 with venv and '
        'pip; without it the first that fits is taken.\n'))
    checkout.add('python3.8')
  assert not checkout.called()


def test_the_lock_is_that_of_the_python(checkout):
  checkout.add('python3.13')
  assert checkout.run(NEW='1')[0] == 0
  assert checkout.called()[2].endswith(
      f' -r {checkout.root}/requirements-py312.lock')


def test_takes_tensorflow_from_the_system(checkout):
  checkout.add('python3')
  (checkout.root / 'requirements.lock').write_text(
      'setuptools==1\ntensorflow==3\ntensorflow-text==4\nwheel==2\n')
  assert checkout.run(MTF_CONV_SYSTEM_TENSORFLOW='1')[0] == 0
  venv_folder = checkout.root / '.venv'
  calls = checkout.called()
  assert calls[0] == f'python3 -m venv --system-site-packages {venv_folder}'
  assert calls[2].endswith(f' -r {venv_folder}/requirements.lock')
  assert (venv_folder / 'requirements.lock').read_text() == (
      'setuptools==1\ntensorflow-text==4\nwheel==2\n')
  # uv's Python would have none.
  shutil.rmtree(venv_folder)
  checkout.add('uv')
  code, said = checkout.run(MTF_CONV_SYSTEM_TENSORFLOW='1', UNFIT='1')
  assert code == 1 and not checkout.called()
  assert 'with venv, pip and TensorFlow' in said and said.count('\n') == 1


@pytest.mark.parametrize('change', ['lock', 'setup', 'moved', 'python gone'])
def test_installs_again(checkout, change):
  checkout.add('python3')
  checkout.run()
  if change == 'lock':
    (checkout.root / 'requirements.lock').write_text('setuptools==3\nwheel==2')
  elif change == 'setup':
    (checkout.root / 'setup.py').write_text('')
  elif change == 'moved':
    checkout.root = checkout.root.rename(checkout.folder / 'elsewhere')
  else:
    (checkout.root / '.venv' / 'bin' / 'python').unlink()
  assert checkout.run()[0] == 0
  assert checkout.installations() == 1
  assert checkout.run() == (0, '')


def test_a_failed_installation_is_repeated(checkout):
  checkout.add('python3')
  checkout.broken.touch()
  code, said = checkout.run()
  assert code == 1
  log = checkout.root / '.venv.log'
  assert said.splitlines()[1:] == [
      'The installation failed (ERROR: nothing fits): the same command tries '
      'again. Is there a network, and does https_proxy name its proxy? All '
      f'that was said: {log}']
  assert log.read_text() == 'WARNING: Retrying\nERROR: nothing fits\n\n'
  assert not any('quickstart' in call for call in checkout.called())
  checkout.broken.unlink()
  assert checkout.run()[0] == 0
  assert checkout.installations() == 1
  assert not log.exists()


def test_no_python_fits_and_uv_cannot_be_had(checkout):
  checkout.add('python3')
  checkout.broken.touch()
  code, said = checkout.run(UNFIT='1')
  assert code == 1
  assert 'brings a Python that fits' in said.splitlines()[0]
  assert said.splitlines()[1:] == [
      'mtf_conv needs Python 3.9 to 3.13 with venv and pip, or uv: install '
      'one (Debian, Ubuntu: apt install python3-venv; any system: uv) and try '
      'again.']


@pytest.mark.parametrize('lock', ['flock', 'mkdir'])
def test_two_at_once(checkout, lock):
  checkout.add('python3')
  if lock == 'mkdir':
    (checkout.tools / 'flock').unlink(missing_ok=True)
  both = [checkout.start(), checkout.start()]
  for process in both:
    process.communicate()
  assert [process.returncode for process in both] == [0, 0]
  assert checkout.installations() == 1
  assert sum('quickstart' in call for call in checkout.called()) == 2
