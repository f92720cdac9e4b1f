"""docs/quickstart.ipynb: its cells, run in their order in one process."""

import ast
import json
import os
import re
import subprocess
import sys

import checkouts
import forked
import pytest
import tiny_scale

ROOT = checkouts.ROOT
PATH = ROOT / 'docs' / 'quickstart.ipynb'
# Stands for what shows a picture in a notebook.
IMAGE = '''
def Image(path):
  with open(path, 'rb') as f:
    print(f.read(8), path)
'''


def _cells(kind):
  return [''.join(cell['source']) for cell in json.loads(
      PATH.read_text('utf-8'))['cells'] if cell['cell_type'] == kind]


@pytest.fixture
def clone(tmp_path):
  """A clone whose .venv stands for that of this Python."""
  folder = tmp_path / 'clone'
  folder.mkdir()
  for name in ('run_scripts', 'mtf_conv', 'gin', 'tasks', 'setup.py',
               'pyproject.toml', 'requirements.lock',
               'requirements-py312.lock'):
    (folder / name).symlink_to(ROOT / name)
  venv = folder / '.venv'
  (venv / 'bin').mkdir(parents=True)
  (venv / 'bin' / 'python').symlink_to(sys.executable)
  path = f'{forked.BIN}:{os.path.dirname(sys.executable)}:$PATH'
  (venv / 'bin' / 'activate').write_text(f'PATH={path}\n')
  (venv / 'installed').write_text(f'{folder}\n' + ''.join(
      (folder / name).read_text() for name in (
          'requirements-py312.lock', 'requirements.lock', 'setup.py',
          'pyproject.toml')))
  (folder / 'docs').mkdir()
  return folder


def _run(cells, folder):
  """Runs cells as one program in a folder; returns what it printed."""
  display = folder / 'IPython' / 'display.py'
  display.parent.mkdir(exist_ok=True)
  display.write_text(IMAGE)
  return subprocess.run(
      [sys.executable, '-c', '\n'.join(cells)], cwd=folder, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
          **os.environ, **forked.environment(),
          # A kernel's, which no environment but its own has.
          'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
          # IPython is found by the cells alone, in the folder they run in.
          'PYTHONPATH': str(ROOT)})


def _answers(printed, init):
  """Returns the answers below the name of a model."""
  lines = printed.split(f'lightconv, {init}:\n')[1].splitlines()[:4]
  return [line.split('\t')[1] for line in lines]


def test_every_cell_runs(clone, tmp_path):
  path = tiny_scale.write(tmp_path, steps=2)
  scale = json.loads(path.read_text())
  scale['evaluate']['gin_params'] = [
      'utils.run.eval_checkpoint_step = -1',
      't5.models.mesh_transformer.mesh_eval_dataset_fn.num_eval_examples = 4']
  path.write_text(json.dumps(scale))
  flags = f'--models=lightconv --scale={path}'
  script = 'run_scripts/quickstart.sh'
  cells = [cell.replace(script, f'{script} {flags}')
           for cell in _cells('code')]
  result = _run(cells, clone / 'docs')
  printed = result.stdout
  assert result.returncode == 0, printed
  assert printed.startswith(f'Python {sys.version.split()[0]}\n')
  assert '| lightconv |' in printed and 'Installing' not in printed
  picture = clone / 'quickstart_runs' / 'curves.png'
  assert f"b'\\x89PNG\\r\\n\\x1a\\n' {picture}\n" in printed
  for init in 'raw', 'pretrained':
    assert len(_answers(printed, init)) == 4


@pytest.mark.slow
def test_what_it_says_comes_out(clone):
  result = _run(_cells('code'), clone / 'docs')
  assert result.returncode == 0, result.stdout
  questions, = re.findall(r'^QUESTIONS = ({.*?^})', _cells('code')[-1],
                          re.M | re.S)
  expected = list(ast.literal_eval(questions).values())
  assert _answers(result.stdout, 'pretrained') == expected
  assert _answers(result.stdout, 'raw') != expected


def test_a_command_that_fails_ends_the_cell(clone):
  result = _run([*_cells('code')[:2], "run('false')"], clone / 'docs')
  assert result.returncode and 'false ended with 1' in result.stdout


def test_alone_it_asks_for_the_address(tmp_path):
  result = _run(_cells('code'), tmp_path)
  assert result.stdout.endswith(
      "ValueError: REPOSITORY (='') must be the address of the repository, "
      'where the notebook is not in a clone\n')


def test_it_is_small_and_has_no_paths():
  text = PATH.read_text('utf-8')
  assert len(text) < 300_000
  assert not re.search(r'/(home|root|work|tmp|Users)/', text)
