"""A command with a mistake has its effect, or says in a line what is wrong.

60 mistakes of whole runs, drawn by seeds; RUN_SLOW=1 draws 2,000. Whatever was
typed, the right command works in the folder afterwards.
"""

import random
import shutil
import subprocess

import forked
import mutations
import pytest
import tiny_vocabulary

TASK = '''
import pathlib
import seqio
from t5.data import preprocessors
from t5.evaluation import metrics
from mtf_conv import vocabulary

FOLDER = pathlib.Path(__file__).parent
FEATURE = seqio.Feature(vocabulary.ConfiguredVocabulary())
seqio.TaskRegistry.add(
    'few_rows',
    source=seqio.TextLineDataSource(
        {split: str(FOLDER / 'rows.tsv') for split in ('train', 'validation')}),
    preprocessors=[
        preprocessors.parse_tsv, seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.append_eos_after_trim],
    metric_fns=[metrics.accuracy],
    output_features={'inputs': FEATURE, 'targets': FEATURE})
'''
TINY = [f'--gin_param={binding}' for binding in (
    'num_layers = 1', 'd_model = 16', 'd_ff = 16', 'd_kv = 4')]
LENGTHS = "utils.run.sequence_length = {'inputs': 16, 'targets': 8}"


class Runs:
  """Commands that work, and the files that they read."""

  def __init__(self, folder):
    self.folder = folder
    self.code = folder / 'code'
    self.code.mkdir()
    (self.code / 'few_rows.py').write_text(TASK)
    (folder / 'few_steps.gin').write_text(
        "include 'runs/finetune.gin'\nTRAIN_STEPS = 2\n")
    self.rows = self.code / 'rows.tsv'
    self.rows.write_text(''.join(
        f'{" ".join(tiny_vocabulary.words(3, seed))}\t'
        f'{tiny_vocabulary.words(1, seed)[0]}\n' for seed in range(8)))
    self.lines = folder / 'lines.txt'
    self.lines.write_text('one\n\ntwo\n')
    self.vocabulary = tiny_vocabulary.write(folder / 'vocabulary.model')
    first, second = folder / 'pretrained', folder / 'tuned'
    self.commands = {
        'train': self._train('None'), 'tune': self._train(f"'{first}'"),
        'evaluate': self._evaluate('runs/eval.gin'),
        'infer': [
            *self._common('runs/predict.gin'),
            f"--gin_param=INPUT = '{self.lines}'", f'--gin_param={LENGTHS}',
            f"--gin_param=OUTPUT = '{folder}/out'"]}
    self.run('train', first)
    self.run('tune', second)

  def _common(self, run):
    return ['--module_import=few_rows', '--gin_file=models/lightconv.tiny.gin',
            f'--gin_file={run}', '--gin_file=hardware/cpu.gin',
            "--gin_param=MIXTURE_NAME = 'few_rows'", *TINY]

  def _train(self, pretrained):
    return [*self._common('few_steps.gin'),
            f'--gin_param=PRETRAINED = {pretrained}', f'--gin_param={LENGTHS}',
            "--gin_param=utils.run.batch_size = ('sequences_per_batch', 4)"]

  def _evaluate(self, run):
    return [*self._common(run),
            '--gin_param=utils.run.eval_checkpoint_step = -1',
            "--gin_param=utils.run.batch_size = ('sequences_per_batch', 8)"]

  def call(self, model_dir, flags):
    """Returns the exit code and the lines of the terminal.

    A training that was told to take long counts as done after a minute.
    """
    try:
      result = forked.run(
          't5_mesh_conv', f'--model_dir={model_dir}', *flags, timeout=60,
          PYTHONPATH=str(self.code), MTF_CONV_VOCAB=self.vocabulary,
          MTF_CONV_PROGRESS='0', cwd=str(self.folder))
    except subprocess.TimeoutExpired as error:
      assert (model_dir / 'progress.json').exists(), error
      return 0, []
    return result.returncode, result.stdout.splitlines()

  def run(self, name, model_dir):
    """Runs a command as it should be."""
    code, lines = self.call(model_dir, self.commands[name])
    assert code == 0, '\n'.join(lines)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp('runs'))


def _assert_plain(code, lines, what):
  text = '\n'.join(lines)
  assert 'Traceback' not in text, (*what, text)
  # What nobody foresaw is told as well as can be, and found here.
  assert 'Is a value wrong?' not in text, (*what, text)
  assert code == 0 or 0 < len(lines) <= 5, (*what, code, text)


def _folder_of(runs, name, folder):
  """Makes the folder that a command works in."""
  shutil.rmtree(folder, ignore_errors=True)
  if name in ('evaluate', 'infer'):
    shutil.copytree(runs.folder / 'tuned', folder)
  return folder


def check_command(runs, seed):
  """A mistake in a command."""
  generator = random.Random(seed)
  name = generator.choice(sorted(runs.commands))
  model_dir = _folder_of(runs, name, runs.folder / 'run')
  flags = mutations.of_command(runs.commands[name], generator)
  code, lines = runs.call(model_dir, flags)
  _assert_plain(code, lines, (seed, name, flags))
  if code and seed % 10 == 0:
    runs.run(name, model_dir)


def check_file(runs, seed):
  """Damage to a file that a command reads."""
  generator = random.Random(seed)
  name = generator.choice(sorted(runs.commands))
  model_dir = _folder_of(runs, name, runs.folder / 'run')
  if generator.random() < 0.5 and model_dir.exists():
    read = sorted(path for path in model_dir.iterdir() if path.is_file()
                  and not path.name.startswith('events'))
  else:
    read = [runs.lines if name == 'infer' else runs.rows]
  path = generator.choice(read)
  kept = path.read_bytes()
  try:
    kind = mutations.of_file(path, generator)
    code, lines = runs.call(model_dir, runs.commands[name])
    _assert_plain(code, lines, (seed, name, kind, path.name))
  finally:
    path.write_bytes(kept)
  if code and seed % 10 == 0:
    runs.run(name, model_dir)


@pytest.mark.parametrize('name, split', [
    ('tune', 'train'), ('evaluate', 'validation')])
def test_a_task_without_rows_is_one_line(name, split, runs):
  model_dir = _folder_of(runs, name, runs.folder / 'run')
  kept = runs.rows.read_text()
  runs.rows.write_text('')
  code, lines = runs.call(model_dir, runs.commands[name])
  runs.rows.write_text(kept)
  assert code == 1 and lines[:-1] == [
      f"few_rows has no example in its split '{split}'"]


@pytest.mark.parametrize('check, seeds', [
    (check_command, range(40)), (check_file, range(20)),
    pytest.param(check_command, range(1300), marks=pytest.mark.slow),
    pytest.param(check_file, range(700), marks=pytest.mark.slow)])
def test_a_mistake_is_told_or_has_its_effect(check, seeds, runs):
  found = []
  for seed in seeds:
    try:
      check(runs, seed)
    except AssertionError as error:
      found.append(str(error).partition('\nassert ')[0])
  assert not found, '\n\n'.join(found)
