"""An exported model answers as predict and score do, without this package."""

import json
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny_vocabulary
import trained_folder

from mtf_conv import cli
from mtf_conv.answer import engine, trained
from mtf_conv.base import command_line
from mtf_conv.exchange import saved_model

LINES = [' '.join(tiny_vocabulary.words(count, count)) for count in (1, 3, 7)]
LINES += ['', ' \u3000\x1c', '  ba\tko  <extra_id_3> li\u200b!', 'é 日本 ﬁ ko',
          '\ufeffba \U0001f600 x\x00y', *LINES[1:]]
TARGETS = ['ko li', '', 'ze', 'a', 'é', '<extra_id_0> mu', 'ro ro', '#']
TARGETS += ['ba'] * (len(LINES) - len(TARGETS))

# Loads a SavedModel where this package, T5 and Mesh TensorFlow cannot be
# imported, and answers lines.
PLAIN = '''
import json, sys
for name in ('mtf_conv', 't5', 'mesh_tensorflow', 'seqio', 'gin'):
  sys.modules[name] = None
import tensorflow as tf
import tensorflow_text
folder, inputs, targets = json.loads(sys.argv[1])
loaded = tf.saved_model.load(folder).signatures
outputs = loaded['serving_default'](tf.constant(inputs))['outputs']
scores = loaded['score'](
    inputs=tf.constant(inputs), targets=tf.constant(targets))['scores']
print(json.dumps([[text.decode() for text in outputs.numpy().tolist()],
                  scores.numpy().tolist()]))
'''


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  monkeypatch.setenv('MTF_CONV_PROGRESS', '0')


def call(*args):
  """Runs a verb in this process; returns its exit code."""
  try:
    return cli.main(['mtf_conv', *map(str, args)])
  except SystemExit as error:
    return error.code


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A trained folder of one block."""
  path = tmp_path_factory.mktemp('trained')
  trained_folder.write(path, bindings=['num_layers = 1'])
  return path


@pytest.fixture(scope='module')
def exported(folder, tmp_path_factory):
  """Its SavedModel."""
  path = tmp_path_factory.mktemp('exported') / 'new' / '1'
  assert not call('export', folder, path)
  return path


def signatures(path):
  return tf.saved_model.load(str(path)).signatures


def answers(signature, *texts, batch_size=100):
  """The output of a signature, asked for so many texts at a time."""
  found = []
  for start in range(0, len(texts[0]), batch_size):
    output, = signature(**{
        name: tf.constant([each for each in part[start:start + batch_size]])
        for name, part in zip(('inputs', 'targets'), texts)}).values()
    found += output.numpy().tolist()
  return [each.decode() if isinstance(each, bytes) else each for each in found]


def predicted(folder, tmp_path, *args, lines=LINES):
  """What predict says to lines."""
  (tmp_path / 'in.txt').write_text(''.join(f'{line}\n' for line in lines))
  assert not call('predict', f'--model_dir={folder}', '--overwrite',
                  f'--input={tmp_path}/in.txt', f'--output={tmp_path}/out.txt',
                  *args)
  return (tmp_path / 'out.txt').read_text().split('\n')[:-1]


def scored(folder, tmp_path):
  """What score says of lines with targets."""
  with open(tmp_path / 'pairs.jsonl', 'w') as f:
    for inputs, targets in zip(LINES, TARGETS):
      f.write(json.dumps({'inputs': inputs, 'targets': targets}) + '\n')
  assert not call('score', f'--model_dir={folder}', '--overwrite',
                  f'--input={tmp_path}/pairs.jsonl',
                  f'--output={tmp_path}/scores.jsonl')
  with open(tmp_path / 'scores.jsonl') as f:
    return [json.loads(line)['score'] for line in f]


@pytest.mark.parametrize('model, args', [
    ('lightconv', []), ('dynamicconv', ['--beam_size=3']), ('dilatedconv', []),
    ('transformer', ['--beam_size=2', '--alpha=1.5'])])
def test_answers_are_those_of_predict_and_score(tmp_path, model, args):
  folder = tmp_path / 'trained'
  bindings = ['filter_sizes = [4]'] if model == 'dilatedconv' else []
  trained_folder.write(folder, model, ['num_layers = 1', *bindings])
  assert not call('export', folder, tmp_path / 'out', '--batch_size=3', *args)
  loaded = signatures(tmp_path / 'out')
  expected = predicted(folder, tmp_path, *args)
  assert expected[3:5] == ['', ''] and len(set(expected)) > 3
  scores = scored(folder, tmp_path)
  for batch_size in (1, 2, 5, 100):
    assert answers(loaded['predict'], LINES,
                   batch_size=batch_size) == expected
    np.testing.assert_allclose(
        answers(loaded['score'], LINES, TARGETS, batch_size=batch_size),
        scores, atol=1e-4)
  assert loaded['predict'](tf.constant([], tf.string))['outputs'].shape == (0,)


def test_plain_tensorflow_is_enough(folder, exported, tmp_path):
  result = subprocess.run(
      [sys.executable, '-c', PLAIN,
       json.dumps([str(exported), LINES, TARGETS])],
      cwd=tmp_path, capture_output=True, text=True, timeout=300)
  assert not result.returncode, result.stderr
  outputs, scores = json.loads(result.stdout)
  assert outputs == predicted(folder, tmp_path)
  np.testing.assert_allclose(scores, scored(folder, tmp_path), atol=1e-4)


def test_ids_become_the_text_of_predict(folder):
  found = trained.load(str(folder))
  ids = np.random.RandomState(0).choice(
      [0, 1, 2, 3, *range(trained_folder.VOCABULARY)], size=[500, 12])
  texts = saved_model.Graph(found, engine.Engine(found)).text(
      tf.constant(ids, tf.int32)).numpy().tolist()
  expected = [found.vocabulary.decode([i for i in row if i])
              for row in ids.tolist()]
  assert [text.decode() for text in texts] == expected
  assert any('\u2047' in text for text in expected)  # Of unknown ids.
  assert any('<extra_id_' in text for text in expected)


def test_what_is_long_is_refused_or_cut(folder, exported, tmp_path):
  long = ' '.join(LINES[:3] * 2)
  loaded = signatures(exported)
  with pytest.raises(tf.errors.InvalidArgumentError, match=(
      r'inputs of \d+ tokens: .* at most 24 \(mtf_conv export --inputs_len')):
    answers(loaded['predict'], ['ba', long])
  with pytest.raises(tf.errors.InvalidArgumentError, match=(
      'targets of .* at most 12 .*--targets_length')):
    answers(loaded['score'], ['ba'], [long])
  whole, cut = (
      predicted(folder, tmp_path, '--decode_length=5', *args, lines=[long, 'a'])
      for args in ((), ('--truncate',)))
  assert whole[0] != cut[0]
  for expected, flag in ((whole, '--inputs_length=70'), (cut, '--truncate')):
    assert not call('export', folder, tmp_path / 'long', '--overwrite', flag,
                    '--targets_length=5')
    assert answers(signatures(tmp_path / 'long')['predict'],
                   [long, 'a']) == expected


def test_what_cannot_be_asked(exported):
  loaded = signatures(exported)
  with pytest.raises(tf.errors.InvalidArgumentError, match='on input string'):
    answers(loaded['predict'], ['ba', b'\xe9t\xe9'])
  with pytest.raises(tf.errors.InvalidArgumentError, match='as many targets'):
    loaded['score'](inputs=tf.constant(['a', 'b']), targets=tf.constant(['a']))


def refused(capsys, *args):
  """The line that an export ends with."""
  assert call('export', *args) == 1
  out, err = capsys.readouterr()
  assert not out and err.startswith('mtf_conv export: ')
  assert err.count('\n') == 1, err
  return err


def test_a_folder_that_cannot_be_exported(folder, tmp_path, capsys):
  out = tmp_path / 'out'
  assert 'holds no checkpoint' in refused(capsys, tmp_path, out)
  assert 'model.ckpt-7.index does not exist' in refused(
      capsys, folder, out, '--checkpoint=7')
  assert '--targets_length (=0) must be at least 1' in refused(
      capsys, folder, out, '--targets_length=0')
  assert sorted(tmp_path.iterdir()) == []


NAME = 'decoder/block_000/layer_000/LightConv/wo'


@pytest.mark.parametrize('change, message', [
    (lambda weights: weights.pop(NAME), f'has no variable {NAME}'),
    (lambda weights: weights.update({NAME: weights[NAME][:-1]}),
     f'{NAME} has the shape [15, 16], expected [16, 16]')])
def test_a_checkpoint_of_another_model(tmp_path, capsys, change, message):
  trained_folder.write(tmp_path / 'trained', change=change)
  assert message in refused(capsys, tmp_path / 'trained', tmp_path / 'out')
  assert [path.name for path in tmp_path.iterdir()] == ['trained']


def test_a_vocabulary_that_has_changed(tmp_path, capsys, monkeypatch):
  monkeypatch.delenv('MTF_CONV_VOCAB', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  trained_folder.write(tmp_path / 'trained')
  with open(tmp_path / 'trained' / 'vocabulary.model', 'ab') as f:
    f.write(b'\n')
  assert 'which has changed since or is gone' in refused(
      capsys, tmp_path / 'trained', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_what_is_there_is_kept(folder, exported, tmp_path, capsys):
  before = (exported / 'saved_model.pb').read_bytes()
  assert 'holds a SavedModel and is kept: --overwrite replaces it' in refused(
      capsys, folder, exported)
  assert (exported / 'saved_model.pb').read_bytes() == before
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine.txt').write_text('mine')
  for args in ((), ('--overwrite',)):
    assert 'must be a new or an empty folder' in refused(
        capsys, folder, tmp_path / 'out', *args)
  assert (tmp_path / 'out' / 'mine.txt').read_text() == 'mine'
  # No copy is left beside it when it is replaced.
  (tmp_path / 'old').mkdir()
  (tmp_path / 'old' / 'saved_model.pb').write_text('old')
  assert not call('export', folder, tmp_path / 'old', '--overwrite')
  assert answers(signatures(tmp_path / 'old')['predict'], ['']) == ['']
  assert sorted(path.name for path in tmp_path.iterdir()) == ['old', 'out']


def test_a_full_disk_leaves_nothing(folder, tmp_path, capsys):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
  try:
    said = refused(capsys, folder, tmp_path / 'out')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  assert f'{tmp_path}/out cannot be written: ' in said
  assert sorted(tmp_path.iterdir()) == []
