"""Models are what they were: every checkpoint made so far loads.

golden/models.json holds, for each model below, its variables and the logits of
one batch, as the first version of this package made them. golden/checkpoint is
a checkpoint that this version trained. Neither is ever made anew for a change:
`python tests/golden_test.py NAME ...` adds models that are not in there yet.
"""

import json
import pathlib
import sys
from unittest import mock

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

FOLDER = pathlib.Path(__file__).parent / 'golden'
LAYERS = 'mtf_conv.layers'
BLOCK = 'mtf_conv.released.LocalConvAttnBlock'
RELEASED = ['num_layers = 2', 'Unitransformer.max_length = 16']

# By name: gin files, and bindings after those of harness.TINY.
MODELS = {
    'transformer': (['models/transformer.tiny.gin'], []),
    'lightconv': (['models/lightconv.tiny.gin'], []),
    'dynamicconv': (['models/dynamicconv.tiny.gin'], []),
    'dilatedconv': (['models/dilatedconv.tiny.gin'], []),
    'lightconv, use_bias and pointwise': (
        ['models/lightconv.tiny.gin'],
        [f'{LAYERS}.LightConv.use_bias = True',
         f'{LAYERS}.LightConv.pointwise = True']),
    'dynamicconv, use_bias and pointwise': (
        ['models/dynamicconv.tiny.gin'],
        [f'{LAYERS}.DynamicConv.use_bias = True',
         f'{LAYERS}.DynamicConv.pointwise = True',
         f'{LAYERS}.DynamicConv.num_filters = 4']),
    'lightconv as equation 1': (
        ['models/lightconv.tiny.gin'],
        [f'{LAYERS}.LightConv.num_filters = None',
         f'{LAYERS}.LightConv.softmax = False',
         f'{LAYERS}.LightConv.gated = False']),
    'dilatedconv, dilation_rates': (
        ['models/dilatedconv.tiny.gin'],
        [f'{LAYERS}.DilatedConv.dilation_rates = [1, 2]',
         f'{LAYERS}.DilatedConv.num_filters = None',
         f'{LAYERS}.DilatedConv.use_bias = True']),
    'dynamicconv, dilation_rate': (
        ['models/dynamicconv.tiny.gin'],
        [f'{LAYERS}.DynamicConv.dilation_rate = 2',
         f'encoder/{LAYERS}.DynamicConv.filter_size = 4']),
    'lightconv, one attention layer': (
        ['models/lightconv.tiny.gin', 'models/encoder_attention.gin'], []),
    'dilatedconv, attention in block 0': (
        ['models/dilatedconv.tiny.gin', 'models/encoder_attention.gin'],
        [f'{LAYERS}.AttentionLayerStack.block = 0']),
    'lightconv, paper_norm': (
        ['models/lightconv.tiny.gin', 'models/paper_norm.gin'], []),
    'released lconv': (['models/released/lconv.small.gin'], RELEASED),
    'released dconv': (['models/released/dconv.small.gin'], RELEASED),
    'released lconv, all options': (
        ['models/released/lconv.small.gin'],
        [*RELEASED, f'{BLOCK}.activation = "relu"', f'{BLOCK}.num_filters = 4',
         f'{BLOCK}.pointwise = False']),
    'released dconv, all options': (
        ['models/released/dconv.small.gin'],
        [*RELEASED, f'{BLOCK}.use_bias = False', f'{BLOCK}.num_filters = 8',
         f'encoder/{BLOCK}.max_relative_pos = 2']),
}

_RNG = np.random.RandomState(5)
SOURCE, TARGETS = _RNG.randint(2, harness.VOCABULARY, (2, 2, 12))
SOURCE[1, 9:] = 0
SHOWN_LOGITS = 3  # Of each position.


def _graph_logits(m):
  return m.bitransformer.call_simple(
      m.ids(SOURCE), m.ids(TARGETS), compute_loss=False, mode='eval')[0]


def _describe(name):
  """What a model is now, as it stands in golden/models.json."""
  initializers = {}
  get_variable = mtf.get_variable

  def keep_initializer(mesh, name, shape, *args, initializer=None, **kwargs):
    scope = tf.get_variable_scope().name
    if initializer is not None:
      config = initializer.get_config()
      initializers[f'{scope}/{name}'] = _rounded(config.get('stddev', 0))
    return get_variable(
        mesh, name, shape, *args, initializer=initializer, **kwargs)

  with harness.Model(*MODELS[name]) as m, mock.patch.object(
      mtf, 'get_variable', keep_initializer):
    logits, = m.run([_graph_logits(m)])
    variables = {
        v.name: [v.shape.to_integer_list, initializers.get(v.name)]
        for v in m.graph.trainable_variables}
  return {'variables': variables,
          'logits': _rounded(logits[..., 2:2 + SHOWN_LOGITS])}


def _rounded(values):
  if np.ndim(values):
    return [_rounded(value) for value in values]
  return float(f'{values:.6g}')


def _golden():
  return json.loads((FOLDER / 'models.json').read_text())


@pytest.mark.parametrize('name', MODELS)
def test_a_model_is_what_it_was(name):
  golden, found = _golden()[name], _describe(name)
  assert found['variables'] == golden['variables']
  assert np.abs(golden['logits']).max() > 0.1, 'the logits say something'
  np.testing.assert_allclose(
      found['logits'], golden['logits'], rtol=0, atol=2e-5)


def test_a_checkpoint_made_before_loads():
  """As T5 loads one: every variable of the graph by its name."""
  golden = _golden()['checkpoint']
  with harness.Model(*MODELS['lightconv']) as m:
    logits = mtf.anonymize(_graph_logits(m))
    lowering = harness.lower(m.graph, m.mesh)
    logits = lowering.export_to_tf_tensor(logits)
    with harness.session() as sess:
      tf.train.Saver(tf.global_variables()).restore(
          sess, str(FOLDER / 'checkpoint' / 'model.ckpt-3'))
      sess.run(lowering.copy_masters_to_slices())
      found = sess.run(logits)[..., 2:2 + SHOWN_LOGITS]
  np.testing.assert_allclose(found, golden['logits'], rtol=0, atol=2e-5)


def _train_checkpoint():
  """Trains lightconv for three steps; returns what models.json has of it."""
  with harness.Model(*MODELS['lightconv']) as m:
    logits, loss = m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=True, mode='eval')
    variables = m.graph.trainable_variables
    gradients = mtf.gradients([loss], [v.outputs[0] for v in variables])
    updates = mtf.optimize.AdafactorOptimizer(
        learning_rate=0.01).apply_grads(gradients, variables)
    logits = mtf.anonymize(logits)
    lowering = harness.lower(m.graph, m.mesh)
    logits = lowering.export_to_tf_tensor(logits)
    train = tf.group([lowering.lowered_operation(op) for op in updates])
    with harness.session() as sess:
      weights = {v.op.name: np.zeros(v.shape.as_list())
                 for v in tf.global_variables()}
      weights['global_step'] = 3
      weights.update((v.name, harness.initial_weight(
          v.name, v.shape.to_integer_list)) for v in variables)
      harness.load_weights(sess, weights)
      sess.run(lowering.copy_masters_to_slices())
      for _ in range(3):
        sess.run(train)
      sess.run(lowering.copy_slices_to_masters())
      (FOLDER / 'checkpoint').mkdir(exist_ok=True)
      tf.train.Saver().save(sess, str(FOLDER / 'checkpoint' / 'model.ckpt'),
                            global_step=3, write_meta_graph=False)
      return {'logits': _rounded(sess.run(logits)[..., 2:2 + SHOWN_LOGITS])}


def main(names):
  """Writes what is not in golden/models.json yet."""
  path = FOLDER / 'models.json'
  golden = json.loads(path.read_text()) if path.exists() else {}
  for name in names:
    if name not in golden:
      golden[name] = (_train_checkpoint() if name == 'checkpoint' else
                      _describe(name))
  lines = [f'{json.dumps(name)}: {json.dumps(value)}'
           for name, value in golden.items()]
  path.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
  main(sys.argv[1:] or [*MODELS, 'checkpoint'])
