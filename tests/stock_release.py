"""Checkpoints of mesh-tensorflow's own LocalConvAttnBlock, trained here."""

import functools
import tempfile

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer_layers

BATCH, LENGTH = 3, 12
_LAYERS = 'mesh_tensorflow.transformer.transformer_layers'
_BLOCK = f'{_LAYERS}.LocalConvAttnBlock'
# A dynamic block has many more variables, which take their time.
_NUM_LAYERS = {'lightweight_conv': 2, 'dynamic_conv': 1}
_BINDINGS = [
    f'encoder/transformer.make_layer_stack.layers = [@{_BLOCK}, '
    f'@{_LAYERS}.DenseReluDense]',
    f'decoder/transformer.make_layer_stack.layers = [@{_BLOCK}, '
    f'@{_LAYERS}.EncDecAttention, @{_LAYERS}.DenseReluDense]',
    f'{_BLOCK}.output_size = %d_model',
    f'{_BLOCK}.num_unique_depth_filters = 2',
    f'encoder/{_BLOCK}.min_relative_pos = -4',
    f'encoder/{_BLOCK}.max_relative_pos = 4',
    f'decoder/{_BLOCK}.min_relative_pos = -8',
    f'decoder/{_BLOCK}.max_relative_pos = 0',
]



class Trained:
  """A trained model.

  Attributes:
    folder: of its checkpoint, model.ckpt-3, with Adafactor's slots.
    weights: all that is in the checkpoint, by name.
    logits: of SOURCE and TARGETS, teacher-forced, by mesh-tensorflow's block.
  """

  def __init__(self, folder, logits):
    self.folder = folder
    reader = tf.train.load_checkpoint(folder)
    self.weights = {name: reader.get_tensor(name)
                    for name in reader.get_variable_to_shape_map()}
    self.logits = logits


def model(attention_type):
  """The release's gin file, but for its sizes, on mesh-tensorflow's block."""
  return harness.Model(['models/bi_bert_base.gin'], [
      *_BINDINGS, f'num_layers = {_NUM_LAYERS[attention_type]}',
      f'{_BLOCK}.attention_type = {attention_type!r}'])


def token_ids(seed, padding=(0, 0, 0)):
  """Random ids, [batch, length], of which row b ends in padding[b] zeros."""
  ids = np.random.RandomState(seed).randint(
      2, harness.VOCABULARY, (BATCH, LENGTH))
  return ids * (np.arange(LENGTH) < LENGTH - np.array(padding)[:, None])


SOURCE = token_ids(1, padding=(0, 3, 7))
TARGETS = token_ids(2, padding=(5, 0, 2))


def logits(m):
  """Teacher-forced logits of SOURCE and TARGETS, an mtf Tensor."""
  return m.bitransformer.call_simple(
      m.ids(SOURCE), m.ids(TARGETS), compute_loss=False, mode='eval',
      variable_dtype=m.variable_dtype)[0]


def _initial_weight(variable):
  weight = harness.initial_weight(variable.name, variable.shape.to_integer_list)
  # Logits of the size of 1.
  return weight * 10 if 'embedding' in variable.name else weight


@functools.lru_cache(maxsize=None)
def trained(attention_type, repeats=1, steps=3):
  """Trains a model from random weights, biases included.

  Args:
    attention_type: 'lightweight_conv' or 'dynamic_conv'.
    repeats: how often filters are repeated over the channels. The block has no
      argument for it; the convolution in it has, num_unique_depth_filters.
    steps: how often Adafactor is applied.

  Returns:
    A Trained.
  """
  folder = tempfile.mkdtemp()
  with model(attention_type) as m:
    for stack in (m.encoder, m.decoder):
      for layer in stack.layer_stack.layers:
        if isinstance(layer, transformer_layers.LocalConvAttnBlock):
          layer.conv_local_attn_layer._num_unique_depth_filters = repeats
    _, loss = m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=True)
    variables = m.graph.trainable_variables
    gradients = mtf.gradients([loss], [v.outputs[0] for v in variables])
    updates = mtf.optimize.AdafactorOptimizer(
        learning_rate=0.01).apply_grads(gradients, variables)
    after = mtf.anonymize(logits(m))
    lowering = harness.lower(m.graph, m.mesh)
    train = tf.group([lowering.lowered_operation(op) for op in updates])
    after = lowering.export_to_tf_tensor(after)
    with harness.session() as sess:
      # Adafactor's slots and the step begin at 0.
      weights = {v.op.name: np.zeros(v.shape.as_list())
                 for v in tf.global_variables()}
      weights.update((v.name, _initial_weight(v)) for v in variables)
      harness.load_weights(sess, weights)
      sess.run(lowering.copy_masters_to_slices())
      for _ in range(steps):
        sess.run(train)
      sess.run(lowering.copy_slices_to_masters())
      tf.train.Saver().save(sess, f'{folder}/model.ckpt', global_step=steps)
      return Trained(folder, sess.run(after))


def save(folder, weights, step=3):
  """Writes a checkpoint of arrays by name into a folder."""
  with tf.Graph().as_default(), harness.session() as sess:
    for name, value in weights.items():
      tf.Variable(tf.zeros(value.shape, value.dtype), name=name)
    harness.load_weights(sess, weights)
    tf.train.Saver().save(sess, f'{folder}/model.ckpt', global_step=step,
                          write_meta_graph=False)
