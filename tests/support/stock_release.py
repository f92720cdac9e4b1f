"""Checkpoints of mesh-tensorflow's own LocalConvAttnBlock, trained here."""

import functools
import tempfile

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer_layers

BATCH, LENGTH = 3, 12
STEPS = 3  # How often Adafactor is applied.
_LAYERS = 'mesh_tensorflow.transformer.transformer_layers'
_BLOCK = f'{_LAYERS}.LocalConvAttnBlock'
_BINDINGS = [
    f'encoder/transformer.make_layer_stack.layers = [@{_BLOCK}, '
    f'@{_LAYERS}.DenseReluDense]',
    f'decoder/transformer.make_layer_stack.layers = [@{_BLOCK}, '
    f'@{_LAYERS}.EncDecAttention, @{_LAYERS}.DenseReluDense]',
    f'{_BLOCK}.output_size = %d_model',
    f'{_BLOCK}.num_unique_depth_filters = 2',
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


def bindings(attention_type, num_layers=1, half=4):
  """The release's gin file, but for its sizes, on mesh-tensorflow's block.

  Args:
    attention_type: 'lightweight_conv' or 'dynamic_conv'.
    num_layers: of the encoder, and of the decoder.
    half: of the window; 4 in the release.

  Returns:
    A list of gin bindings that go with models/bi_bert_base.gin.
  """
  return [
      *_BINDINGS, f'num_layers = {num_layers}',
      f'{_BLOCK}.attention_type = {attention_type!r}',
      f'encoder/{_BLOCK}.min_relative_pos = {-half}',
      f'encoder/{_BLOCK}.max_relative_pos = {half}',
      f'decoder/{_BLOCK}.min_relative_pos = {-2 * half}',
      f'decoder/{_BLOCK}.max_relative_pos = 0',
  ]


def model(*args, **kwargs):
  """A Model of these bindings."""
  return harness.Model(
      ['models/bi_bert_base.gin'], bindings(*args, **kwargs))


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
  if 'embedding' in variable.name:
    return weight * 10  # Logits of the size of 1.
  if variable.name.endswith('local_conv_attn_op_projection/kernel'):
    return weight * 10  # Of which the convolutions make most.
  return weight


def trained(attention_type, repeats=1):
  """Trains a model from random weights, biases included; each one once.

  Args:
    attention_type: 'lightweight_conv' or 'dynamic_conv'.
    repeats: how often filters are repeated over the channels. The block has no
      argument for it; the convolution in it has, num_unique_depth_filters.

  Returns:
    A Trained; with repeats, of a smaller window than the release's.
  """
  return _trained(attention_type, repeats)


@functools.lru_cache(maxsize=None)
def _trained(attention_type, repeats):
  folder = tempfile.mkdtemp()
  # A dynamic block has many more variables, which take their time.
  num_layers = 2 if (attention_type, repeats) == ('lightweight_conv', 1) else 1
  with model(attention_type, num_layers, 4 if repeats == 1 else 1) as m:
    for stack in (m.encoder, m.decoder):
      for layer in stack.layer_stack.layers:
        if isinstance(layer, transformer_layers.LocalConvAttnBlock):
          layer.conv_local_attn_layer._num_unique_depth_filters = repeats
    logits, loss = m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=True, mode='eval')
    variables = m.graph.trainable_variables
    gradients = mtf.gradients([loss], [v.outputs[0] for v in variables])
    updates = mtf.optimize.AdafactorOptimizer(
        learning_rate=0.01).apply_grads(gradients, variables)
    logits = mtf.anonymize(logits)
    lowering = harness.lower(m.graph, m.mesh)
    train = tf.group([lowering.lowered_operation(op) for op in updates])
    logits = lowering.export_to_tf_tensor(logits)
    with harness.session() as sess:
      # Adafactor's slots begin at 0; T5, not the optimizer, counts steps.
      weights = {v.op.name: np.zeros(v.shape.as_list())
                 for v in tf.global_variables()}
      weights['global_step'] = STEPS
      weights.update((v.name, _initial_weight(v)) for v in variables)
      harness.load_weights(sess, weights)
      sess.run(lowering.copy_masters_to_slices())
      for _ in range(STEPS):
        sess.run(train)
      sess.run(lowering.copy_slices_to_masters())
      tf.train.Saver().save(sess, f'{folder}/model.ckpt', global_step=STEPS,
                            write_meta_graph=False)
      return Trained(folder, sess.run(logits))


def save(folder, weights):
  """Writes a checkpoint of arrays by name into a folder, sorted as T5's are."""
  weights = dict(sorted(weights.items()))
  name = f'model.ckpt-{STEPS}'
  with tf.Graph().as_default(), harness.session() as sess:
    sess.run(tf.raw_ops.SaveV2(
        prefix=f'{folder}/{name}', tensor_names=list(weights),
        shape_and_slices=[''] * len(weights), tensors=list(weights.values())))
  with open(f'{folder}/checkpoint', 'w') as f:
    f.write(f'model_checkpoint_path: "{name}"\n')
