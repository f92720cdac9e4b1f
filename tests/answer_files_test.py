"""predict, score and embed on files as people have them."""

import gzip
import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import tiny_vocabulary
import trained_folder
from pyarrow import parquet

from mtf_conv import cli
from mtf_conv.answer import output, verbs
from mtf_conv.base import command_line

LINES = [' '.join(tiny_vocabulary.words(3, seed)) for seed in range(40)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('trained')
  trained_folder.write(path, bindings=['num_layers = 1'])
  return path


@pytest.fixture
def call(folder, tmp_path, capsys, monkeypatch):
  """Runs a verb in a folder; returns (exit code, what was said, one line)."""
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  monkeypatch.setenv('MTF_CONV_PROGRESS', '0')
  monkeypatch.chdir(tmp_path)

  def run(verb, *args, model_dir=folder):
    try:
      code = cli.main(['mtf_conv', verb, f'--model_dir={model_dir}', *args])
    except SystemExit as error:
      code = error.code
    out, err = capsys.readouterr()
    return code, out, err

  return run


@pytest.fixture
def predicted(call, tmp_path):
  """Returns the answers to a file of some content, as lines."""
  def run(content, name='in.txt', *args):
    (tmp_path / name).write_bytes(content)
    code, _, err = call('predict', f'--input={name}', '--output=out.txt',
                        '--overwrite', *args)
    assert not code, err
    return (tmp_path / 'out.txt').read_bytes().decode().split('\n')[:-1]
  return run


def test_as_many_answers_as_lines(predicted, tmp_path):
  plain = predicted('\n'.join(LINES[:3]).encode())  # Without a last newline.
  assert len(plain) == 3 and all(plain)
  other = '\ufeff{}\r\n\r\n  \r\n{}\r\n{}\r\n'.format(*LINES)
  assert predicted(gzip.compress(other.encode()), 'in.gz') == [
      plain[0], '', '', *plain[1:]]
  assert predicted(b'') == []
  assert predicted(b'\n\n') == ['', '']
  # Characters that end a line elsewhere are within one here.
  assert len(predicted(f'{LINES[0]}\x00\x0b\x85\u2028\x1b\n'.encode())) == 1


def test_tsv_and_jsonl(call, tmp_path):
  (tmp_path / 'in.tsv').write_text(f'{LINES[0]}\tfirst\n\n{LINES[1]}\n')
  code, _, err = call('predict', '--input=in.tsv', '--output=out.tsv')
  assert not code, err
  rows = [line.rstrip('\n').split('\t') for line in open('out.tsv')]
  assert [row[:-1] for row in rows] == [[LINES[0], 'first'], [''], [LINES[1]]]
  (tmp_path / 'in.jsonl').write_text(''.join(
      json.dumps({'id': i, 'question': line}) + '\n'
      for i, line in enumerate(LINES[:2])))
  code, _, err = call('predict', '--input=in.jsonl', '--output=out.jsonl',
                      '--inputs_field=question', '--scores')
  assert not code, err
  answers = [json.loads(line) for line in open('out.jsonl')]
  assert [answer['id'] for answer in answers] == [0, 1]
  assert [answer['prediction'] for answer in answers] == [
      rows[0][-1], rows[2][-1]]
  assert rows[1][-1] == '' and all(answer['score'] < 0 for answer in answers)


def test_score_files(call, tmp_path, monkeypatch):
  (tmp_path / 'in.txt').write_text('\n'.join(LINES[:3]))
  (tmp_path / 'targets.txt').write_text('\n'.join(LINES[3:6]))
  (tmp_path / 'in.tsv').write_text(''.join(
      f'{a}\t{b}\n' for a, b in zip(LINES[:3], LINES[3:6])))
  assert not call('score', '--input=in.txt', '--targets=targets.txt',
                  '--output=out.txt')[0]
  assert not call('score', '--input=in.tsv', '--output=out.tsv')[0]
  scores = (tmp_path / 'out.txt').read_text().split()
  assert len(scores) == 3 and all(float(score) < 0 for score in scores)
  assert [line.split('\t')[2] for line in
          (tmp_path / 'out.tsv').read_text().splitlines()] == scores
  with open(tmp_path / 'in.txt') as f:
    monkeypatch.setattr('sys.stdin', f)
    code, out, err = call('score', '--input=-', '--output=-',
                          '--output_format=tsv', '--classes=ba,ko')
  assert not code, err
  assert len(out.splitlines()) == 3
  for line, row in zip(LINES, out.splitlines()):
    inputs, best, *probabilities = row.split('\t')
    assert inputs == line and best in ('ba', 'ko')
    assert sum(map(float, probabilities)) == pytest.approx(1, abs=1e-5)


def test_long_inputs_are_read_or_cut(call, tmp_path):
  (tmp_path / 'long.txt').write_text(
      ' '.join(LINES[:6]) + '\n' + ' '.join(LINES[:2]))
  said = []
  for extra in ((), ('--truncate',)):
    code, out, err = call('predict', '--input=long.txt', '--output=-', *extra)
    assert not code
    said.append((out.splitlines(), err))
  (whole, long), (cut, short) = said
  assert whole[1] == cut[1] and whole[0] != cut[0]
  assert '1 inputs are longer than the 24 tokens' in long
  assert '1 inputs were cut to 24 tokens' in short


@pytest.mark.slow
def test_a_million_characters_have_an_answer(predicted):
  million = (' '.join(LINES) * 1400)[:1_000_000]
  assert len(million) == 1_000_000
  assert len(predicted(million.encode())) == 1


BAD = [
    (b'fine\n\xe9t\xe9\n', 'in.txt', ('--classes=ba,ko',),
     'in.txt:2: not UTF-8: byte 0xe9 at column 1'),
    (b'fine\tb\nalone\n', 'in.tsv', (),
     'in.tsv:2: expected 2 columns parted by tabs (inputs, targets), found 1'),
    (b'{"inputs": "a", "targets": "b"}\n{"input": "a"}\n', 'in.jsonl', (),
     "in.jsonl:2: no field 'inputs' among ['input']; did you mean 'input'?"),
    (b'{"inputs": "a"\n', 'in.jsonl', (), 'in.jsonl:1: not JSON: '),
    (b'{"inputs": 3, "targets": "b"}\n', 'in.jsonl', (),
     "in.jsonl:1: the field 'inputs' must be a string, found int"),
    (b'["a"]\n', 'in.jsonl', (),
     "in.jsonl:1: expected an object with the field 'inputs', found list"),
    (b'{"inputs": "\\ud800", "targets": "b"}\n', 'in.jsonl', (),
     "in.jsonl:1: half of a surrogate pair, '\\ud800', is no character"),
    (gzip.compress(LINES[0].encode() * 9)[:-9], 'in.gz', ('--classes=ba,ko',),
     'in.gz: cannot be read after line 0'),
    (b'a\nb\n', 'in.txt', ('--targets=one.txt',),
     'one.txt has 1 lines, and in.txt has more'),
    (b'', 'in.txt', ('--targets=one.txt',),
     'in.txt has 0 lines, and one.txt has more'),
    (b'a\n', 'in.txt', (), 'in.txt is text and has no targets: give --targets'),
    (b'a\n', 'in.txt', ('--classes=a,a',),
     "--classes: 'a' and 'a' are the same tokens"),
    (b'a\n', 'in.txt', ('--classes=a',), 'expected two or more names'),
    (b'a\n', 'in.txt', ('--classes=a,\u65e5',),
     "'\u65e5' has characters that the model's vocabulary does not know"),
    (b'a\tb\n', 'in.tsv', ('--input=none.tsv',),
     'none.tsv: there is no such file'),
    (b'a\tb\n', 'in.tsv', ('--output=no/out',), 'no is no folder'),
    (b'a\tb\n', 'in.tsv', ('--batch_size=0',),
     '--batch_size (=0) must be at least 1'),
    (b'a\tb\n', 'in.tsv', ('--checkpoint=7',),
     'model.ckpt-7.index does not exist'),
]


@pytest.mark.parametrize('content, name, args, message', BAD,
                         ids=[str(i) for i in range(len(BAD))])
def test_bad_input_is_one_line(call, tmp_path, content, name, args, message):
  (tmp_path / name).write_bytes(content)
  (tmp_path / 'one.txt').write_text('one\n')
  code, out, err = call(
      'score', f'--input={name}', '--output=out.txt', *args)
  assert code == 1 and not out
  assert err.startswith('mtf_conv score: ') and message in err
  assert err.count('\n') == 1
  assert not (tmp_path / 'out.txt').exists()


@pytest.mark.parametrize('args, message', [
    (['--top_p=0'], '--top_p (=0.0) must be more than 0'),
    (['--temperature=-1'], '--temperature (=-1.0) must be at least 0'),
    (['--top_k=3'], 'give --temperature=1, or --beam_size'),
    (['--beam_size=2', '--temperature=1'], 'give one of them'),
    (['--beam_size=2', '--num_return=3', '--output_format=tsv'],
     '--num_return (=3) must be at most --beam_size (=2)'),
    (['--beam_size=2', '--num_return=2'], 'text has one answer a line'),
    (['--scores'], 'text has one answer a line'),
])
def test_flags_that_do_not_fit(call, tmp_path, args, message):
  (tmp_path / 'in.txt').write_text('a\n')
  code, _, err = call('predict', '--input=in.txt', '--output=out.txt', *args)
  assert code == 1 and message in err and err.count('\n') == 1


def test_an_output_that_exists_is_kept(call, tmp_path):
  (tmp_path / 'in.txt').write_text(f'{LINES[0]}\n')
  (tmp_path / 'out.npy').write_text('mine')
  args = ['embed', '--input=in.txt', '--output=out.npy']
  code, _, err = call(*args)
  assert code == 1 and 'out.npy exists and is kept: --overwrite' in err
  assert (tmp_path / 'out.npy').read_text() == 'mine'
  assert call(*args, '--overwrite')[0] == 0
  assert np.load(tmp_path / 'out.npy').shape == (1, 16)
  assert sorted(os.listdir(tmp_path)) == ['in.txt', 'out.npy']


def test_parquet_has_the_vectors_of_npy(stopped, call, tmp_path, monkeypatch):
  args = ['embed', '--input=in.txt', '--output=out.parquet']
  stopped('embed', '--output=out.parquet')
  monkeypatch.setattr(verbs, '_GROUP', 16)
  assert call(*args)[0] == 0
  assert call('embed', '--input=in.txt', '--output=out.npy')[0] == 0
  file = parquet.ParquetFile(tmp_path / 'out.parquet')
  assert file.num_row_groups == 3
  states = file.read().column('state').to_pylist()
  np.testing.assert_allclose(states, np.load(tmp_path / 'out.npy'), atol=1e-6)
  assert sorted(os.listdir(tmp_path)) == ['in.txt', 'out.npy', 'out.parquet']


@pytest.fixture
def stopped(call, tmp_path, monkeypatch):
  """Runs a command that is stopped when it has answered 16 of 40 lines."""
  def run(verb, *args):
    (tmp_path / 'in.txt').write_text('\n'.join(LINES))
    add = output.Output.add

    def add_once(self, content, of_lines):
      if self.done:
        raise KeyboardInterrupt
      add(self, content, of_lines)

    with monkeypatch.context() as patch:
      patch.setattr(output.Output, 'add', add_once)
      code, _, _ = call(verb, '--input=in.txt', '--batch_size=1', *args)
    assert code == 130
  return run


@pytest.mark.parametrize('verb, name', [
    ('predict', 'out.txt'), ('embed', 'out.npy')])
def test_what_is_done_is_not_done_again(
    call, stopped, tmp_path, monkeypatch, verb, name):
  args = [verb, '--input=in.txt']
  stopped(verb, f'--output={name}')
  assert not (tmp_path / name).exists()
  assert not call(*args, f'--output=whole.{name}', '--batch_size=8')[0]
  asked = []
  cls = getattr(verbs, verb.title())
  rows = cls.rows
  monkeypatch.setattr(cls, 'rows', lambda self, record: asked.append(
      record.number) or rows(self, record))
  code, _, err = call(*args, f'--output={name}', '--batch_size=8')
  assert not code and f'{name}: goes on after 16 answers.' in err
  assert asked == list(range(17, 41))
  if verb == 'predict':
    assert (tmp_path / name).read_text() == (
        tmp_path / f'whole.{name}').read_text()
  else:
    found = np.load(tmp_path / name)
    assert found.shape == (40, 16)
    np.testing.assert_allclose(
        found, np.load(tmp_path / f'whole.{name}'), atol=1e-5)


def test_a_wrong_line_of_standard_input_keeps_what_comes_before(
    call, tmp_path, monkeypatch):
  content = '\n'.join(LINES).encode()
  for lines, code in ((content.replace(LINES[20].encode(), b'\xe9'), 1),
                      (content, 0)):
    (tmp_path / 'in').write_bytes(lines)
    with open(tmp_path / 'in') as f:
      monkeypatch.setattr('sys.stdin', f)
      found, _, err = call('embed', '--input=-', '--output=out.npy',
                           '--batch_size=1')
    assert found == code
    assert ('goes on after 16' if not code else '-:21: not UTF-8') in err
  assert np.load(tmp_path / 'out.npy').shape == (40, 16)


def test_what_is_done_otherwise_is_not_gone_on_with(call, stopped, tmp_path):
  args = ['embed', '--output=out.npy']
  stopped(*args)
  code, _, err = call(*args, '--input=in.txt', '--truncate')
  assert code == 1 and 'begun with truncate=False, and now it is True' in err
  (tmp_path / 'in.txt').write_text('\n'.join(reversed(LINES)))
  code, _, err = call(*args, '--input=in.txt')
  assert code == 1 and 'has the answers to other lines than the first 16' in err
  assert not call(*args, '--input=in.txt', '--overwrite')[0]
  assert np.load(tmp_path / 'out.npy').shape == (40, 16)


def test_a_full_disk(call, tmp_path):
  (tmp_path / 'in.txt').write_text('\n'.join(LINES))
  args = ['embed', '--input=in.txt', '--output=out.npy', '--batch_size=1']
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 20 * 64, limits[1]))
  try:
    code, _, err = call(*args)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  assert code == 1 and err == (
      'mtf_conv embed: out.npy.partial: File too large: 16 answers are kept '
      'there, and the same command goes on with it\n')
  assert not (tmp_path / 'out.npy').exists()
  code, _, err = call(*args)
  assert not code and 'goes on after 16' in err
  assert np.load(tmp_path / 'out.npy').shape == (40, 16)


def _without(name):
  return lambda weights: weights.pop(name)


def _reshape(weights):
  name = 'encoder/block_000/layer_000/LightConv/filters'
  weights[name] = weights[name][:, :3]


def _more(weights):
  name = 'encoder/block_000/layer_001/DenseReluDense/wi/kernel'
  weights[name.replace('block_000', 'block_001')] = weights[name]


@pytest.mark.parametrize('change, message', [
    (_without('decoder/rms_norm/scale'),
     'model.ckpt-30 has no variable decoder/rms_norm/scale: '),
    (_reshape, 'LightConv/filters has the shape [2, 3], expected [2, 7]: '),
    (_more, 'has a variable encoder/block_001/layer_001/DenseReluDense/wi/'
     'kernel that the model lacks: '),
], ids=['missing', 'reshaped', 'more'])
def test_a_checkpoint_of_another_model(call, tmp_path, change, message):
  folder = tmp_path / 'folder'
  trained_folder.write(folder, bindings=['num_layers = 1'], change=change)
  (tmp_path / 'in.txt').write_text('a\n')
  code, _, err = call('predict', '--input=in.txt', '--output=out.txt',
                      model_dir=folder)
  assert code == 1 and message in err and err.count('\n') == 1
  assert 'operative_config.gin describes another model than' in err
  assert not (tmp_path / 'out.txt').exists()


def test_folders_that_lack_something(call, tmp_path, folder, monkeypatch):
  (tmp_path / 'in.txt').write_text('a\n')
  copy = tmp_path / 'copy'

  def said(change):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    change()
    code, _, err = call('predict', '--input=in.txt', '--output=out.txt',
                        model_dir=copy)
    assert code == 1 and err.count('\n') == 1, err
    return err

  assert 'copy holds no checkpoint' in said(lambda: shutil.rmtree(copy))
  assert 'operative_config.gin does not exist' in said(
      (copy / 'operative_config.gin').unlink)
  assert 'operative_config.gin cannot be used: Unknown gin configurable' in (
      said(lambda: (copy / 'operative_config.gin').write_text('nothing.a = 1')))
  assert 'record.json is damaged' in said(
      lambda: (copy / 'record.json').write_text('{'))
  # The record's vocabulary has changed, and no other one is known.
  record = json.loads((folder / 'record.json').read_text())
  record['starts'][0]['vocabulary']['sha256'] = 'f' * 64
  monkeypatch.setenv('MTF_CONV_VOCAB', str(folder / 'vocabulary.model'))
  assert 'vocabulary.model (sha256 ffffffffffff), which has changed' in said(
      lambda: (copy / 'record.json').write_text(json.dumps(record)))


def test_a_vocabulary_that_has_moved_is_found(call, tmp_path, monkeypatch):
  folder = tmp_path / 'folder'
  trained_folder.write(folder, bindings=['num_layers = 1'])
  (folder / 'vocabulary.model').rename(tmp_path / 'moved.model')
  (tmp_path / 'in.txt').write_text('a\n')
  args = ['embed', '--input=in.txt', '--output=out.npy']
  monkeypatch.delenv('MTF_CONV_VOCAB', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  _, _, err = call(*args, model_dir=folder)
  assert 'which has changed since or is gone' in err
  monkeypatch.setenv('MTF_CONV_VOCAB', str(tmp_path / 'moved.model'))
  assert not call(*args, model_dir=folder)[0]
