"""Evaluation decodes whole answers."""

import functools
import re

import gin
import mesh_tensorflow as mtf
import pytest
import raw_data
import seqio
import tensorflow.compat.v1 as tf
import tiny_vocabulary
from mesh_tensorflow.transformer import transformer

from mtf_conv import evaluation
from mtf_conv.base import errors
from mtf_conv.measure import graph, models
from mtf_conv.prepare import builders


@pytest.fixture(autouse=True)
def vocabulary(tmp_path, monkeypatch):
  path = tiny_vocabulary.write(tmp_path / 'tiny.model')
  monkeypatch.setenv('MTF_CONV_VOCAB', path)
  yield seqio.SentencePieceVocabulary(path)
  gin.clear_config()
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture
def prepared(tmp_path):
  """Prepares a task and parses what its evaluation is told."""
  def parse(task, *bindings, answers=None):
    (tmp_path / 'raw').mkdir()
    raw_data.WRITERS[task](tmp_path / 'raw')
    if answers:
      raw_data.write_squad(tmp_path / 'raw', *answers)
    builders.prepare(task, raw_dir=tmp_path / 'raw', data_dir=tmp_path)
    seqio.set_tfds_data_dir_override(str(tmp_path))
    models.parse(['models/lightconv.tiny.gin', 'runs/eval.gin'],
                 [f"MIXTURE_NAME = '{task}'", *bindings])
  return parse


def _decoded_length():
  """Returns how long the model's outputs are."""
  with graph.Builder() as builder:
    ids = mtf.zeros(builder.mesh, mtf.Shape(
        [mtf.Dimension('batch', 1), mtf.Dimension('length', 3)]), tf.int32)
    return transformer.make_bitransformer(300, 300).decode(
        ids, mtf.VariableDType(tf.float32)).shape.dims[-1].size


_evaluate = functools.partial(
    evaluation.eval_dataset_fn, sequence_length=None, vocabulary=None)


def test_decodes_as_far_as_the_longest_answer(prepared, vocabulary, capfd):
  prepared('cogs_gen')
  lengths = [len(vocabulary.encode(answer)) + 1
             for _, answer in raw_data.EXAMPLES['cogs_gen']['validation']]
  dataset, = _evaluate(dataset_split='validation')
  assert dataset.name == 'cogs_gen'
  assert _decoded_length() == max(lengths) > 3
  _evaluate(dataset_split='train')
  assert 3 < _decoded_length() < max(lengths)
  # Whatever a user has the examples cut to.
  _evaluate(dataset_split='validation',
            sequence_length={'inputs': 4, 'targets': 2})
  assert _decoded_length() == max(lengths)
  assert re.fullmatch(  # The pieces depend on the version of SentencePiece.
      r'cogs_gen: 2 of 2 inputs have more than 4 tokens \(up to 2\d\) and are '
      r'cut: utils.run.sequence_length = None cuts none\n',
      capfd.readouterr().err)


def test_every_right_answer_of_squad_fits(prepared, vocabulary):
  prepared('squad', answers=['Colorado', 'a town (a resort) in Colorado'])
  _evaluate(dataset_split='validation')
  assert _decoded_length() == 1 + len(
      # T5 parts punctuation from words.
      vocabulary.encode('a town ( a resort ) in Colorado'))


def test_says_how_many_answers_are_cut(prepared, vocabulary, capfd):
  prepared('cogs_gen', 'DECODE_LENGTH = 20')
  longest = max(len(vocabulary.encode(answer)) + 1
                for _, answer in raw_data.EXAMPLES['cogs_gen']['validation'])
  _evaluate(dataset_split='validation')
  assert _decoded_length() == 20
  assert (
      f'cogs_gen: 2 of 2 answers have more than 20 tokens (up to {longest}) '
      'and count as wrong, since DECODE_LENGTH (=20) cuts them\n'
  ) in capfd.readouterr().err


def test_unknown_split(prepared):
  prepared('trec')
  with pytest.raises(errors.UserError) as error:
    _evaluate(dataset_split='tets')
  assert errors.user_message(error.value) == (
      "trec has no split 'tets': it has train, validation, test, dev; did you "
      "mean 'test'?")
