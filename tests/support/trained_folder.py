"""The folder of a run without the run: a tiny model of random weights."""

import json
import os

import gin
import mesh_tensorflow as mtf
import mtf_harness as harness
import tensorflow.compat.v1 as tf
import tiny_vocabulary

from mtf_conv.base import files
from mtf_conv.measure import graph, models

SIZE = ['d_model = 16', 'd_ff = 32', 'num_heads = 4', 'd_kv = 4',
        'num_layers = 2']
LENGTHS = {'inputs': 24, 'targets': 12}
VOCABULARY = 384  # 250 pieces, 100 sentinels, in parts of 128.
STEP = 30


def write(folder, model='lightconv', bindings=(), change=dict.copy):
  """Writes a folder as t5_mesh_conv does.

  Args:
    folder: a pathlib.Path, made if need be.
    model: the name of a model that has the size tiny.
    bindings: gin bindings of the model.
    change: a function that changes its weights, a dictionary.

  Returns:
    The weights, arrays by the names of variables.
  """
  folder.mkdir(parents=True, exist_ok=True)
  path = tiny_vocabulary.write(folder / 'vocabulary.model')
  models.parse([f'models/{model}.tiny.gin'], [
      *SIZE, 'Unitransformer.shared_embedding_and_softmax_weights = False',
      f'utils.run.sequence_length = {LENGTHS}', *bindings])
  (folder / 'operative_config.gin').write_text(gin.config_str())
  (folder / 'record.json').write_text(json.dumps({'starts': [{'vocabulary': {
      'path': path, 'sha256': files.sha256(path), 'size': 350}}]}))
  with graph.Builder() as builder:
    ids = mtf.ones(builder.mesh, mtf.Shape(
        [mtf.Dimension('batch', 1), mtf.Dimension('length', 1)]), tf.int32)
    models.make(VOCABULARY).call_simple(ids, ids, compute_loss=False)
    weights = {
        v.op.name: harness.initial_weight(v.op.name, v.shape.as_list())
        for v in tf.global_variables()}
  # Answers are not all the same, and some of them end.
  logits = weights['decoder/logits/kernel']
  logits *= 3
  logits[:, 1] = 1.05 * logits[:, 44]  # As often as another one.
  logits[:, 250:] = 0
  change(weights)
  with tf.Graph().as_default():
    variables = [tf.get_variable(name, initializer=value)
                 for name, value in weights.items()]
    variables.append(tf.get_variable(
        'global_step', initializer=tf.constant(STEP, tf.int64)))
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      tf.train.Saver(variables).save(
          session, os.path.join(folder, 'model.ckpt'), global_step=STEP)
  return weights

