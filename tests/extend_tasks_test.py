"""docs/extend.md's task and hardware file do what the page says."""

import importlib
import json

import pages
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_vocabulary

PAGE = 'docs/extend.md'


@pytest.fixture
def vocabulary(tmp_path):
  return tiny_vocabulary.write(tmp_path / 'tiny.model')


def test_add_a_task(tmp_path, vocabulary):
  found = pages.blocks(PAGE, 'Add a task')
  assert pages.write_files(found, tmp_path) == [
      'my_code/my_tasks.py', 'my_gin/sequence_lengths/animals.gin']
  printed = pages.run(found, tmp_path, MTF_CONV_VOCAB=vocabulary)
  assert '200/200' in printed and 'accuracy' in printed
  folder = tmp_path / 'runs' / 'animals'
  trained = json.loads((folder / 'record.json').read_text())
  assert 'animals' in json.dumps(trained)
  targets = (folder / 'validation_eval' / 'animals_targets').read_text()
  assert targets.split() == ['dog', 'cat']


def test_a_data_set_of_tfds(tmp_path, monkeypatch):
  found = pages.blocks(PAGE, 'A data set of TFDS')
  pages.write_files(found, tmp_path)
  monkeypatch.syspath_prepend(tmp_path / 'my_code')
  importlib.import_module('my_reviews')
  task = seqio.TaskRegistry.get('yelp')
  try:
    assert task.source.tfds_dataset.name == 'yelp_polarity_reviews:0.2.0'
    features = task.source.tfds_dataset.info.features
    rows = tf.data.Dataset.from_tensor_slices({
        'text': ['never again', 'twice a week'], 'label': [0, 1]})
    assert set(features) == set(rows.element_spec)
    texts = list(tfds.as_numpy(task.preprocessors[0](rows)))
    assert texts == [
        {'inputs': b'yelp review: never again', 'targets': b'negative'},
        {'inputs': b'yelp review: twice a week', 'targets': b'positive'}]
    # Yelp's classes are '1', the stars that stand for bad, and '2'.
    assert features['label'].names == ['1', '2']
  finally:
    seqio.TaskRegistry.remove('yelp')


def test_add_a_hardware_file(tmp_path):
  found = pages.blocks(PAGE, 'Add a hardware file')
  assert pages.write_files(found, tmp_path) == [
      'my_gin/hardware/shared_gpus.gin', 'my_gin/hardware/my.gin']
  assert '3/3' in pages.run(found, tmp_path)
  gin = (tmp_path / 'runs' / 'my_hardware' / 'operative_config.gin').read_text()
  assert 'MESH_SHAPE = \'model:2\'' in gin
