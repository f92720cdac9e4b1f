"""Tests of the preparation of data from raw files."""

import concurrent.futures
import hashlib
import json
import os

import pytest
import raw_data
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv import cli
from mtf_conv.base import errors, network
from mtf_conv.prepare import builders, raw_files

_TRAIN = (b'DESC:manner How did serfdom develop in Russia ?\n'
          b'LOC:city Which is the sister\xf0city of Los Angeles ?\n'
          b'ENTY:food What is caf\xe9 au lait ?\n')
_TEST = b'NUM:dist How far is it from Denver to Aspen ?\n'


@pytest.fixture(autouse=True)
def offline(monkeypatch):
  monkeypatch.setattr(network, '_connects', lambda address: False)


@pytest.fixture
def raw(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  (folder / 'train_5500.label').write_bytes(_TRAIN)
  (folder / 'TREC_10.label').write_bytes(_TEST)
  return folder


@pytest.fixture
def data(tmp_path):
  return tmp_path / 'tfds'


def _rows(data, split):
  builder = tfds.builder('trec:1.0.0', data_dir=data)
  names = builder.info.features['label-fine'].names
  return [(names[row['label-fine']], row['text'].decode())
          for row in tfds.as_numpy(builder.as_dataset(split))]


def _half_prepared(data):
  return [path for path in data.rglob('*')
          if path.name.endswith('.raw') or 'incomplete' in path.name]


def test_a_subset_is_prepared_and_recorded_as_one(raw, data, capsys):
  folder = builders.prepare('trec', raw_dir=raw, data_dir=data)
  assert folder == str(data / 'trec' / '1.0.0')
  assert builders.prepared_dir('trec', data) == folder
  # TFDS makes the byte 0xf0 a space; other bytes are taken for Latin-1.
  assert sorted(_rows(data, 'train')) == [
      ('city', 'Which is the sister city of Los Angeles ?'),
      ('food', 'What is caf\u00e9 au lait ?'),
      ('manner', 'How did serfdom develop in Russia ?'),
  ]
  assert _rows(data, 'test') == [
      ('dist', 'How far is it from Denver to Aspen ?')]
  manifest = json.loads((data / 'mtf_conv' / 'trec-1.0.0.json').read_text())
  assert not manifest.pop('original')
  assert manifest['files'][0] == {
      'file': 'train_5500.label', 'size': len(_TRAIN),
      'sha256': hashlib.sha256(_TRAIN).hexdigest(), 'rows': 3,
      'registered_sha256': '9e4c8bdcaffb96ed61041bd64b564183'
                           'd52793a8e91d84fc3a8646885f466ec3'}
  output = capsys.readouterr().out
  assert 'train_5500.label: 3 rows, sha256' in output
  assert 'not the original' in output
  assert output.endswith('(train 3 of 5452, test 1 of 500)\n')
  assert not _half_prepared(data)


def test_a_second_call_finds_it_there(raw, data, capsys):
  folder = builders.prepare('trec', raw_dir=raw, data_dir=data)
  stamp = os.stat(folder).st_mtime_ns
  capsys.readouterr()
  assert builders.prepare('trec', raw_dir=raw, data_dir=data) == folder
  assert builders.prepare('trec', data_dir=data) == folder
  assert os.stat(folder).st_mtime_ns == stamp
  assert capsys.readouterr().out == (
      f'trec is already prepared in {folder}\n' * 2)


def test_other_files_than_it_was_made_from(raw, data):
  builders.prepare('trec', raw_dir=raw, data_dir=data)
  (raw / 'TREC_10.label').write_bytes(_TEST + _TRAIN)
  with pytest.raises(errors.UserError, match='made from another TREC_10.label'):
    builders.prepare('trec', raw_dir=raw, data_dir=data)


def test_two_at_once(raw, data, capsys):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    folders = list(pool.map(
        lambda _: builders.prepare('trec', raw_dir=raw, data_dir=data),
        range(2)))
  assert folders[0] == folders[1]
  assert capsys.readouterr().out.count('is already prepared') == 1


def test_after_a_killed_call(raw, data):
  left = [data / 'trec' / 'incomplete.ABC123_1.0.0',
          data / 'mtf_conv' / 'trec-1.0.0.raw']
  for folder in left:
    folder.mkdir(parents=True)
    (folder / 'half').write_text('written')
  assert builders.prepared_dir('trec', data) is None
  builders.prepare('trec', raw_dir=raw, data_dir=data)
  assert len(_rows(data, 'train')) == 3
  assert not _half_prepared(data)


def _fail_to_copy(*unused_args):
  raise OSError(28, 'No space left on device')


def _fail_to_build(*unused_args):
  raise tf.errors.ResourceExhaustedError(
      None, None, 'trec-train.tfrecord; No space left on device')


@pytest.mark.parametrize('owner, name, fail', [
    (raw_files.RawFile, 'write', _fail_to_copy),
    (tf.io.TFRecordWriter, 'write', _fail_to_build)])
def test_full_disk(owner, name, fail, raw, data, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, fail)
    with pytest.raises(errors.UserError) as error:
      builders.prepare('trec', raw_dir=raw, data_dir=data)
  assert str(error.value).startswith(f'cannot prepare trec in {data}: ')
  assert str(error.value).endswith('No space left on device')
  assert not [path for path in data.rglob('*')
              if path.is_file() and path.suffix != '.lock']
  assert builders.prepared_dir('trec', data) is None
  builders.prepare('trec', raw_dir=raw, data_dir=data)


def test_what_only_the_builder_finds(tmp_path, data):
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['wiki_toxicity'](tmp_path / 'raw')
  path = tmp_path / 'raw' / 'wikidata_train.csv'
  path.write_text(path.read_text().replace('0b', '0a'))
  with pytest.raises(errors.UserError) as error:
    builders.prepare('wiki_toxicity', tmp_path / 'raw', data)
  message, = str(error.value).splitlines()
  assert message.startswith("TFDS's builder wikipedia_toxicity_subtypes/")
  assert 'Two examples share the same hashed key' in message
  assert not [path for path in data.rglob('*') if path.name.endswith('.json')
              and path.parent.name != '.config']
  assert not _half_prepared(data)


@pytest.mark.parametrize('line, problem', [
    (b'LOC What is it ?', "expected 'COARSE:fine question', found 'LOC'"),
    (b'', "expected 'COARSE:fine question', found ''"),
    (b'LOC:citi What is it ?',
     "unknown label-fine 'citi'; did you mean 'city'?"),
    (b'LOK:city What is it ?',
     "unknown label-coarse 'LOK'; did you mean 'LOC'?"),
    (b'LOC:city', "no question after 'LOC:city'"),
])
def test_malformed_line(line, problem, raw, data):
  path = raw / 'train_5500.label'
  path.write_bytes(_TRAIN + line + b'\n' + _TEST)
  with pytest.raises(errors.UserError) as error:
    builders.prepare('trec', raw_dir=raw, data_dir=data)
  assert str(error.value) == f'{path}:4: {problem}'
  assert builders.prepared_dir('trec', data) is None
  assert not _half_prepared(data)


def test_missing_and_empty_files(raw, data):
  path = raw / 'TREC_10.label'
  path.write_bytes(b'')
  with pytest.raises(errors.UserError, match=f'{path} is empty'):
    builders.prepare('trec', raw_dir=raw, data_dir=data)
  path.unlink()
  with pytest.raises(errors.UserError, match=f'{path} does not exist'):
    builders.prepare('trec', raw_dir=raw, data_dir=data)


def test_no_network(data):
  with pytest.raises(errors.UserError) as error:
    builders.prepare('trec', data_dir=data)
  assert str(error.value) == (
      'train_5500.label comes from cogcomp.org, which does not answer: fetch '
      'it elsewhere and give --raw_dir')


def test_unknown_task():
  with pytest.raises(errors.UserError, match="'treck': .*did you mean 'trec'"):
    builders.prepare('treck')


def test_the_original(data_dir, data, capsys):
  builders.prepare('trec', raw_dir=f'{data_dir}/trec', data_dir=data)
  output = capsys.readouterr().out
  assert output.count('its sha256 is the registered one') == 2
  assert '(train 5452, test 500)' in output
  manifest = json.loads((data / 'mtf_conv' / 'trec-1.0.0.json').read_text())
  assert manifest['original']


@pytest.mark.parametrize('name', ['sst2', 'ag_news', 'cogs'])
def test_the_real_files_of_the_paper(name, data_dir, data):
  builders.prepare(name, raw_dir=data_dir, data_dir=data)
  manifest, = (data / 'mtf_conv').rglob('*.json')
  splits = {split['split']: (split['rows'], split['original_rows'])
            for split in json.loads(manifest.read_text())['splits']}
  assert splits == {
      'sst2': {'train': (67349, 67349), 'validation': (872, 872),
               'test': (1821, 1821)},
      'ag_news': {'train': (11827, 120000), 'test': (7600, 7600)},
      'cogs': {'train': (24155, 24155), 'dev': (3000, 3000),
               'test': (3000, 3000), 'gen': (21000, 21000)},
  }[name]


@pytest.mark.slow
def test_the_real_imdb(data_dir, data, capsys):
  builders.prepare('imdb', raw_dir=data_dir, data_dir=data)
  assert '(train 25000, test 25000, unsupervised 50000)' in (
      capsys.readouterr().out)


def test_all_that_there_are_files_of(tmp_path, data, capsys):
  for name in ('trec', 'sst2', 'cogs'):
    raw_data.WRITERS[name](tmp_path / 'raw' / name)
  (tmp_path / 'raw' / 'sst2' / 'SST-2' / 'dev.tsv').unlink()
  with pytest.raises(errors.UserError, match='^not prepared: sst2$'):
    builders.prepare_all(['all'], tmp_path / 'raw', data)
  output = capsys.readouterr().out
  assert 'mnli: no folder mnli in ' in output
  assert 'dev.tsv does not exist' in output
  assert builders.prepared_dir('trec', data)
  assert builders.prepared_dir('cogs_gen', data)
  assert not builders.prepared_dir('sst2', data)


def test_names_of_several_tasks():
  assert builders.task_names(['sst2', 'sst2']) == ['sst2']
  assert set(builders.task_names(['table2'])) < set(
      builders.task_names(['all']))
  with pytest.raises(errors.UserError, match="did you mean 'table2'"):
    builders.task_names(['table_2'])


def test_every_source_is_registered():
  for name, dataset in raw_files.DATASETS.items():
    data = seqio.TaskRegistry.get(name).source.tfds_dataset
    builder = tfds.builder(data.name)
    for source in dataset.sources:
      url, info = builders._registered(source, builder)
      assert url.startswith('http') and len(info.checksum) == 64


def test_a_data_set_of_tfds_that_only_its_builder_knows(
    tmp_path, monkeypatch, capsys):
  (tmp_path / 'my_data.py').write_text('''
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv.tasks import classification


class MyWords(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict({
            'text': tf.string,
            'label': tfds.features.ClassLabel(num_classes=2)}))

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(8),
            'test': self._generate_examples(2)}

  def _generate_examples(self, count):
    for row in range(count):
      yield row, {'text': f'word {row}', 'label': row % 2}


classification.add('my_words', classification.Dataset(
    tfds_name='my_words:1.0.0', splits={'train': 'train', 'validation': 'test'},
    fields={'word': 'text'}, label='label', labels=('even', 'odd')))
''')
  monkeypatch.syspath_prepend(tmp_path)
  command = ['mtf_conv', 'prepare', '--module_import=my_data', 'my_words',
             f'--data_dir={tmp_path / "tfds"}']
  try:
    assert cli.main(command) == 0
    assert 'my_words is prepared in' in capsys.readouterr().out
    assert os.path.isdir(builders.prepared_dir('my_words', tmp_path / 'tfds'))
    assert cli.main(command) == 0
    assert 'already prepared' in capsys.readouterr().out
    assert cli.main([*command, f'--raw_dir={tmp_path}']) == 1
    assert '--raw_dir is not for my_words' in capsys.readouterr().err
  finally:
    seqio.TaskRegistry.remove('my_words')
