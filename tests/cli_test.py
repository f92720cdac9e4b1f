"""The command line: help, wrong input, list and doctor."""

import json
import os
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from mtf_conv import cli
from mtf_conv.base import command_line, files
from mtf_conv.commands import doctor
from mtf_conv.commands import list as listing
from mtf_conv.prepare import available


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch):
  """The tests that follow may want to see what is logged."""
  monkeypatch.setattr(command_line, 'quiet', lambda: None)


def call(capsys, *args):
  """Returns (exit code, standard output, standard error) of a verb."""
  try:
    code = cli.main(['mtf_conv', *args])
  except SystemExit as error:
    code = error.code
  return (code, *capsys.readouterr())


@pytest.mark.parametrize('argument, shown', [
    ('--help', 'doctor'), ('list', 'imdb_span_corruption')])
def test_help_and_list_need_no_tensorflow(argument, shown):
  start = time.monotonic()
  done = subprocess.run(
      [sys.executable, '-X', 'importtime', '-m', 'mtf_conv.cli', argument],
      capture_output=True, text=True, check=True)
  assert time.monotonic() - start < 5
  assert shown in done.stdout
  assert 'tensorflow' not in done.stderr


@pytest.mark.parametrize(
    'verb', ['list', 'doctor', 'prepare', 'convert', 'export'])
def test_every_verb_has_help(capsys, verb):
  code, out, _ = call(capsys, verb, '--help')
  assert code == 0
  assert f'usage: mtf_conv {verb}' in out


@pytest.mark.parametrize('args, named', [
    (['lsit'], "did you mean 'list'?"),
    (['list', 'model'], "did you mean 'models'?"),
    (['doctor', '--data-dir=x'], "did you mean '--data_dir'?"),
    (['prepare', 'trec', '--raw=x'], "unknown flag '--raw'"),
    (['prepare'], 'required: task'),
])
def test_wrong_input_is_told_in_one_line(capsys, args, named):
  code, out, err = call(capsys, *args)
  assert code == 2
  assert not out
  assert err.count('\n') == 1 and named in err


def test_no_verb(capsys):
  code, out, _ = call(capsys)
  assert code == 2
  assert 'doctor' in out


def test_unknown_task(capsys):
  code, _, err = call(capsys, 'prepare', 'trek')
  assert code == 1
  assert err.count('\n') == 1 and "did you mean 'trec'?" in err


def test_list_names_all(capsys):
  code, out, _ = call(capsys, 'list')
  assert code == 0
  for name in ('lightconv', '208,747,344', 'runs/pretrain.gin',
               'Pre-trains as section 4.2.1', 'trec', 'demo_finetune',
               'comes with mtf_conv'):
    assert name in out


def test_models_go_from_small_to_large():
  sizes = [size for name, size, _, _ in listing.models() if name == 'lightconv']
  assert sizes == ['tiny', 'mini', 'small', 'base', 'large']
  assert all(parameters for _, _, parameters, _ in listing.models())


def _data(task, data_dir=None):
  """Whether a task's data is there, and where or what to do."""
  return {name: row for name, *row in available.tasks(data_dir)}[task]


def test_where_text_comes_from(monkeypatch, tmp_path):
  (tmp_path / 'a.txt').write_text('A line.\n')
  monkeypatch.delenv('MTF_CONV_TEXT', raising=False)
  there, text = _data('text_span_corruption')
  assert not there and 'MTF_CONV_TEXT' in text
  monkeypatch.setenv('MTF_CONV_TEXT', str(tmp_path / '*.txt'))
  assert _data('text_span_corruption') == [True, '1 text files']


def test_a_bucket_is_not_looked_into(monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', 'gs://none')
  there, text = _data('trec')
  assert there and 'gs://none, which is not looked into' in text


def test_prepared_data_is_counted_as_its_task_splits_it(tmp_path):
  folder = tmp_path / 'imdb_reviews' / 'plain_text' / '1.0.0'
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').write_text(json.dumps({'splits': [
      {'name': 'train', 'shardLengths': ['25']},
      {'name': 'unsupervised', 'shardLengths': ['20', '30']}]}))
  assert [_data(task, str(tmp_path)) for task in
          ('imdb', 'imdb_span_corruption')] == [
      [True, f'imdb_reviews/plain_text:1.0.0 in {tmp_path}, {rows} examples']
      for rows in (25, 49)]
  there, text = _data('trec', str(tmp_path))
  assert not there and text.endswith(
      f'run mtf_conv prepare trec --data_dir={tmp_path}')


def test_the_listing_is_that_of_the_registry():
  assert json.loads(available.LISTING.read_text()) == available.registered(), (
      'python -m mtf_conv.prepare.available writes it anew')
  assert files.tfds_data_dir() == tfds.core.constants.DATA_DIR


def test_doctor(capsys, monkeypatch, tmp_path):
  monkeypatch.delenv('MTF_CONV_VOCAB', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  code, out, _ = call(capsys, 'doctor', f'--data_dir={tmp_path}')
  assert code == 0, out
  for line in ('ok       tensorflow ', 'CPU', 'absent   vocabulary',
               f'absent   task trec: trec:1.0.0 is not prepared in {tmp_path}',
               'gin files in', 'Nothing that is needed is broken.'):
    assert line in out


def test_doctor_finds_what_is_broken(capsys, monkeypatch, tmp_path):
  altered = tmp_path / 'altered.model'
  altered.write_bytes(b'no model')
  monkeypatch.setenv('MTF_CONV_VOCAB', str(altered))
  monkeypatch.setattr(doctor, '_version', {
      'setuptools': '99.1', 'tfds-nightly': '4.9',
      'tensorflow-datasets': '4.9.10', 'seqio-nightly': '0.0.18'}.get)
  code, out, _ = call(capsys, 'doctor')
  assert code == 1
  for line in (
      'BROKEN   setuptools 99.1 (supported: <81)\n         -> pip install',
      'BROKEN   gin-config is not installed',
      'DOUBTFUL tensorflow-datasets and tfds-nightly are both installed and '
      'hold the same files\n         -> pip uninstall -y tensorflow-datasets '
      'tfds-nightly && pip install tensorflow-datasets==4.9.10',
      'DOUBTFUL seqio-nightly 0.0.18 in place of seqio',
      f'BROKEN   vocabulary {altered}'):
    assert line in out, out


def test_doctor_stops_where_nothing_imports(capsys, monkeypatch):
  from mtf_conv import t5_main
  def fail():
    raise ImportError('no module named x')
  monkeypatch.setattr(t5_main, 'preload', fail)
  code, out, _ = call(capsys, 'doctor')
  assert code == 1
  assert 'BROKEN   t5_mesh_conv cannot be imported: no module named x' in out
  assert 'vocabulary' not in out


def test_output_may_be_cut(tmp_path):
  """As in `mtf_conv list gin | head -1`."""
  read, write = os.pipe()
  os.close(read)
  process = subprocess.run(
      [sys.executable, '-m', 'mtf_conv.cli', 'list', 'gin'], stdout=write,
      stderr=subprocess.PIPE, text=True)
  os.close(write)
  assert process.returncode == 1 and not process.stderr
