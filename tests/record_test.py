"""The record beside a run's checkpoints, and what the report makes of it."""

import json
import shlex
import sys

import gin
import pytest
import seqio
import tensorflow.compat.v1 as tf

from mtf_conv.base import errors
from mtf_conv.model_dir import record
from mtf_conv.replicate import grid
from mtf_conv.report import provenance


@pytest.fixture(autouse=True)
def no_gin():
  gin.clear_config()


def _train(model_dir, steps, vocabulary, seed=3):
  """Counts to `steps`, as a training of one weight and its slot."""
  with tf.Graph().as_default():
    step = tf.train.get_or_create_global_step()
    tf.get_variable('weight', [2, 3])
    tf.get_variable('weight_slot_vc', [3])
    count = tf.assign_add(step, 1)
    recorder = record.Recorder(str(model_dir), vocabulary, seed)
    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=str(model_dir), hooks=[
            recorder, tf.train.StopAtStepHook(last_step=steps)]) as session:
      while not session.should_stop():
        session.run(count)



def test_an_entry_for_each_start(tmp_path):
  vocabulary = seqio.ByteVocabulary()
  for steps in (3, 5):
    _train(tmp_path, steps, vocabulary)
  first, second = record.read(str(tmp_path))
  assert (first['first_step'], first['last_step']) == (0, 3)
  assert (second['first_step'], second['last_step']) == (3, 5)
  for start in (first, second):
    assert start['parameters'] == 6 and start['seed'] == 3
    assert start['started'] <= start['ended'] and start['seconds'] >= 0
    assert start['vocabulary'] == {
        'name': 'ByteVocabulary', 'size': vocabulary.vocab_size}
    assert start['versions']['tensorflow'] == tf.__version__
    assert start['command'] == shlex.join(sys.argv) and start['machine']


def test_one_that_was_killed_has_no_end(tmp_path):
  with tf.Graph().as_default():
    tf.train.get_or_create_global_step()
    recorder = record.Recorder(str(tmp_path), seqio.ByteVocabulary(), None)
    recorder.begin()
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      recorder.after_create_session(session, None)
  assert record.read(str(tmp_path))[0]['ended'] is None


def test_no_record_and_a_damaged_one(tmp_path):
  assert record.read(str(tmp_path)) == []
  for text in ('{"starts": [', '[]', '{}'):
    (tmp_path / 'record.json').write_text(text)
    with pytest.raises(errors.UserError, match='record.json is damaged'):
      record.read(str(tmp_path))


def test_another_vocabulary_is_refused(tmp_path):
  trained = seqio.ByteVocabulary()
  _train(tmp_path, 1, (trained, trained))
  record.check_vocabulary(str(tmp_path), (trained, trained))
  record.check_vocabulary(str(tmp_path / 'none'), trained)
  other = seqio.PassThroughVocabulary(7)
  with pytest.raises(errors.UserError, match=(
      'was trained with the vocabulary ByteVocabulary of 259 pieces, this run '
      'has PassThroughVocabulary of 7')):
    record.check_vocabulary(str(tmp_path), other)


def test_the_report_tells_what_it_doubts(tmp_path):
  runs = grid.make(grid.load_scale('demo'), str(tmp_path),
                   models=['lightconv'], inits=['raw'], learning_rates=[0.001])
  finetune, evaluate = runs
  assert provenance.doubts(runs) == []
  folder = tmp_path / 'lightconv/seed0/demo_finetune/raw_lr0.001'
  for steps in (1, 2):
    _train(folder, steps, seqio.ByteVocabulary(), seed=steps)
  line, = provenance.doubts([finetune])
  assert 'went on at step 1 with other settings: seed 2 after 1' in line
  with tf.Graph().as_default(), tf.summary.FileWriter(
      str(folder / 'validation_eval')) as writer:
    for step in (1, 9):
      writer.add_summary(tf.Summary(value=[tf.Summary.Value(
          tag='eval/demo_finetune/accuracy', simple_value=50)]), step)
  lines = provenance.doubts([evaluate])
  assert lines == [
      f'{evaluate.job.name}: no accuracy of the checkpoints at step 2',
      f'{evaluate.job.name}: accuracy of checkpoints that are no longer there: '
      'step 9']
  (folder / 'record.json').write_text(json.dumps({}))
  assert 'damaged' in provenance.doubts([finetune])[0]
