"""Few labels: a stratified part of the training rows, the same each time."""

import collections

import gin
import numpy as np
import pytest
import raw_data
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_vocabulary
from mtf_conv.tasks import labels

from mtf_conv import tasks  # noqa: F401, for the registry
from mtf_conv.base import errors
from mtf_conv.prepare import builders
from mtf_conv.replicate import grid


def test_each_class_keeps_its_share():
  classes = np.random.RandomState(0).choice(3, 1000, p=[0.6, 0.3, 0.1])
  whole = np.bincount(classes) / 1000
  for wanted in (10, 99, 500, 1000):
    drawn = labels.draw(classes, wanted, seed=0)
    assert len(set(drawn)) == wanted
    found = np.bincount(classes[drawn], minlength=3)
    assert (np.abs(found - wanted * whole) < 1).all()


def test_a_larger_set_holds_the_smaller_one_and_seeds_differ():
  classes = np.random.RandomState(1).choice(2, 800)
  small, large = (labels.draw(classes, count, 0) for count in (100, 400))
  assert len(set(small) - set(large)) <= 1  # By rounding.
  assert set(small) != set(labels.draw(classes, 100, seed=1))


@pytest.fixture
def trec(tmp_path, monkeypatch):
  """The task trec, prepared."""
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', tiny_vocabulary.write(tmp_path / 'tiny.model'))
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['trec'](tmp_path / 'raw')
  builders.prepare('trec', raw_dir=tmp_path / 'raw', data_dir=tmp_path)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  yield seqio.get_mixture_or_task('trec')
  seqio.set_tfds_data_dir_override(None)


def _targets(task, split='train', **options):
  with tf.Graph().as_default():
    return collections.Counter(
        row['inputs_pretokenized'] for row in tfds.as_numpy(task.get_dataset(
            {'inputs': 64, 'targets': 8}, split, use_cached=False,
            **options)))


def test_a_task_reads_as_many_rows_as_gin_says(trec):
  everything = _targets(trec)
  validation = _targets(trec, 'validation')
  count = sum(everything.values())
  gin.bind_parameter('mtf_conv.tasks.labels.limit', count - 1)
  some = _targets(trec, shuffle=True, seed=1)
  assert sum(some.values()) == count - 1 and not some - everything
  assert some == _targets(trec, shuffle=True, seed=2), 'the rows are the same'
  assert trec.num_input_examples('train') == count - 1
  assert _targets(trec, 'validation') == validation
  parts = [_targets(trec, shard_info=seqio.ShardInfo(i, 2), seed=1)
           for i in range(2)]
  assert parts[0] + parts[1] == some


@pytest.mark.parametrize('limit, message', [
    (10**6, 'must be at most '), (0, 'must be a number of rows'),
    ('2k', "(='2k') must be a number of rows")])
def test_a_wrong_limit_is_told(trec, limit, message):
  gin.bind_parameter('mtf_conv.tasks.labels.limit', limit)
  with pytest.raises(errors.UserError) as error:
    _targets(trec)
  assert message in str(error.value) and '\n' not in str(error.value)


def test_rows_to_choose_by_are_not_trained_on(trec):
  everything = _targets(trec)
  whole = sum(everything.values())
  gin.bind_parameter('mtf_conv.tasks.labels.dev', 1)
  dev = _targets(trec, labels.DEV)
  assert sum(dev.values()) == trec.num_input_examples(labels.DEV) == 1
  rest = _targets(trec, shuffle=True, seed=1)
  assert rest + dev == everything
  assert trec.num_input_examples('train') == whole - 1
  gin.bind_parameter('mtf_conv.tasks.labels.limit', 1)
  few = _targets(trec)
  assert sum(few.values()) == 1 and not few - rest
  assert _targets(trec, labels.DEV) == dev
  gin.bind_parameter('mtf_conv.tasks.labels.limit', whole)
  with pytest.raises(errors.UserError, match=f'must be at most {whole - 1}, .*'
                     "without the 1 in the split 'dev'"):
    _targets(trec)


@pytest.mark.parametrize('dev, split, message', [
    (10**6, 'train', 'must be less than '), (-1, 'train', 'must be the number'),
    (0, labels.DEV, r'\(=0\) must be the number of training rows')])
def test_a_wrong_number_to_choose_by_is_told(trec, dev, split, message):
  gin.bind_parameter('mtf_conv.tasks.labels.dev', dev)
  with pytest.raises(errors.UserError, match=message):
    _targets(trec, split)


def test_a_task_without_classes_has_no_few_labels(trec):
  gin.bind_parameter('mtf_conv.tasks.labels.limit', 3)
  source = trec.source
  without = type(source)(
      lambda: source.tfds_dataset.name, {'train': 'train'}, remedy='')
  with pytest.raises(errors.UserError, match='trec:1.0.0 is of no task'):
    without.get_dataset('train')


def test_a_split_dev_of_the_data_itself_is_read(trec):
  source = trec.source
  own = type(source)(
      lambda: source.tfds_dataset.name, {labels.DEV: 'test'}, remedy='')
  assert own.num_input_examples(labels.DEV) == 1
  with tf.Graph().as_default():
    assert len(list(tfds.as_numpy(own.get_dataset(labels.DEV)))) == 1


def test_a_grid_chooses_by_held_out_rows(tmp_path):
  scale = grid.load_scale('mini')
  scale['tasks'] = {'trec@100': {'steps': 10, 'inputs': 40, 'dev': 50}}
  train, validation, dev = grid.make(
      scale, str(tmp_path), ['lightconv'], None, ['raw'], [0.001])
  assert grid.DEV == labels.DEV == dev.split
  held_out = '--gin_param=mtf_conv.tasks.labels.dev = 50'
  assert held_out in train.job.argv and held_out in dev.job.argv
  assert held_out not in validation.job.argv
  assert "--gin_param=utils.run.dataset_split = 'dev'" in dev.job.argv
  assert dev.job.needs == (validation.job.name,)
  assert dev.job.outputs[0].endswith('/dev_eval/trec_*_predictions')
  assert len({run.job.name for run in (train, validation, dev)}) == 3


def test_a_grid_has_tasks_with_few_labels(tmp_path):
  scale = grid.load_scale('mini')
  scale['tasks'] = {'trec@100': {'steps': 10, 'inputs': 40},
                    'trec': {'steps': 20, 'inputs': 40}}
  few, all_of_them = (
      grid.make(scale, str(tmp_path), ['lightconv'], [task], ['raw'], [0.001])
      for task in scale['tasks'])
  (train, evaluate), (whole, _) = few, all_of_them
  assert '--gin_param=mtf_conv.tasks.labels.limit = 100' in train.job.argv
  assert "--gin_param=MIXTURE_NAME = 'trec'" in train.job.argv
  assert not any('labels.limit' in word for word in (
      *whole.job.argv, *evaluate.job.argv))
  assert train.model_dir != whole.model_dir
  assert evaluate.task == train.task == 'trec@100'
  assert evaluate.job.outputs[0].endswith('/trec_*_predictions')
  scale['tasks'] = {'trec@many': {'steps': 10, 'inputs': 40}}
  with pytest.raises(errors.UserError, match="'trec@many': expected a number"):
    grid.make(scale, str(tmp_path), ['lightconv'])
