"""Tables and pictures from event files and checkpoints made by hand."""

import math
import os

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv.model_dir import events
from mtf_conv.report import curves, table

TASK = 'demo_finetune'


def write_events(folder, tag, curve):
  """Writes a new event file of one curve; returns its path."""
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(
        str(folder), filename_suffix=f'.{len(list(folder.glob("events.*")))}')
  for step, value in curve.items():
    writer.add_summary(tf.Summary(
        value=[tf.Summary.Value(tag=tag, simple_value=value)]), step)
  writer.close()
  return max(folder.glob('events.*'))


def write_checkpoint(folder, shapes):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, shape in shapes.items():
      tf.get_variable(name, shape)
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, os.path.join(folder, 'model.ckpt'), 3)


@pytest.fixture
def model_dirs(tmp_path):
  """Two models, of which the second has not been fine-tuned."""
  def folder(model, run):
    path = tmp_path / model / run
    path.mkdir(parents=True, exist_ok=True)
    return path

  tag = f'eval/{TASK}/accuracy'
  for run, scores in (('raw', {10: 30.0, 20: 40.0, 30: 40.0}),
                      ('pretrained', {10: 90.0, 20: math.nan, 30: 75.0})):
    scored = folder('a', run) / 'validation_eval'
    scored.mkdir()
    write_events(scored, tag, scores)
    write_events(folder('a', run), 'loss', {1: 3.0, 11: 1.0})
  write_checkpoint(folder('a', 'raw'), {
      'shared/embedding': (8, 4), 'shared/embedding_slot_v': (8,),
      'decoder/wi/kernel': (4, 2), 'global_step': ()})
  write_events(folder('a', 'pretrain'), 'global_step/sec',
               {1: 0.1, 2: 10.0, 3: 12.0, 4: 11.0, 5: 1.0})
  write_events(folder('b', 'pretrain'), 'global_step/sec', {1: 5.0})
  return lambda model, run: str(tmp_path / model / run)


def test_the_table(model_dirs):
  frame = table.compare(['a', 'b'], model_dirs, TASK)
  expected = pd.DataFrame({
      'model': ['a', 'b'], 'raw': [40.0, np.nan], 'raw_step': [20, np.nan],
      'pretrained': [90.0, np.nan], 'pretrained_step': [10, np.nan],
      'gain': [50.0, np.nan], 'parameters': [8 * 4 + 4 * 2, np.nan],
      'steps_per_second': [10.0, 5.0]})
  pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
  assert table.to_markdown(frame) == '''\
| model   |   raw |   at step |   pre-trained |   at step |   gain |   parameters |   steps/s |
|:--------|------:|----------:|--------------:|----------:|-------:|-------------:|----------:|
| a       |  40.0 |        20 |          90.0 |        10 |  +50.0 |           40 |      10.0 |
| b       |     - |         - |             - |         - |      - |            - |       5.0 |
'''  # noqa: E501


def test_the_picture(model_dirs, tmp_path):
  path = str(tmp_path / 'curves.png')
  curves.plot(path, ['a', 'b'], model_dirs, TASK)
  picture = matplotlib.image.imread(path)
  assert picture.shape[1] > 1000
  # Both models' colours are in it, and white is not all there is.
  assert picture[..., :3].std() > 0.05


def test_a_resumed_run_reads_as_one_curve(tmp_path):
  """The steps after the last checkpoint are run twice: the last run holds."""
  write_events(tmp_path, 'loss', {0: 5.0, 10: 4.0, 20: 9.0})
  write_events(tmp_path, 'loss', {20: 3.0, 30: 2.0})
  assert events.losses(str(tmp_path)).to_dict() == {
      0: 5.0, 10: 4.0, 20: 3.0, 30: 2.0}


def test_a_killed_run_ends_within_a_record(tmp_path):
  path = write_events(tmp_path, 'loss', {0: 5.0, 10: 4.0})
  path.write_bytes(path.read_bytes()[:-5])
  assert events.losses(str(tmp_path)).to_dict() == {0: 5.0}


def test_nothing_there(tmp_path):
  folder = str(tmp_path / '[none]')
  assert events.losses(folder).empty
  assert math.isnan(events.parameters(folder))
  assert math.isnan(events.steps_per_second(folder))
  assert all(map(math.isnan, events.best(events.scores(folder, TASK))))


def test_predictions_beside_the_text_that_was_read(tmp_path):
  (tmp_path / 'validation_eval').mkdir()
  for name, lines in (
      ('inputs', ["b'who ?'", 'b"it\'s caf\\xc3\\xa9"', "b'it's"]),
      ('targets', ['a', 'b', 'c']), ('7_predictions', ['a', 'x', 'c'])):
    (tmp_path / 'validation_eval' / f'{TASK}_{name}').write_text(
        '\n'.join(lines) + '\n')
  rows = events.predictions(str(tmp_path), TASK, 7)
  assert [row['input'] for row in rows] == ['who ?', "it's café", "b'it's"]
  assert rows[1] == {'input': "it's café", 'target': 'b', 'prediction': 'x'}
  assert events.predictions(str(tmp_path), TASK, 8) == []


def test_all_scores_of_a_checkpoint(tmp_path):
  folder = tmp_path / 'validation_eval'
  folder.mkdir()
  write_events(folder, f'eval/{TASK}/accuracy', {10: 30.0, 20: 40.0})
  write_events(folder, f'eval/{TASK}/invalid', {20: 1.0})
  write_events(folder, 'loss', {20: 3.0})
  assert events.evaluation(str(tmp_path), 20) == {
      f'{TASK}/accuracy': 40.0, f'{TASK}/invalid': 1.0}
  assert events.evaluation(str(tmp_path), 30) == {}
