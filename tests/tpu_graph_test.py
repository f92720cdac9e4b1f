"""What a TPU would compile: tiny models, on cores that are made up."""

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer
from tensorflow.python.compiler.xla import xla
from tensorflow.python.tpu import tpu

from mtf_conv.measure.tpu import xla_operations

# Two of the four always: one is computed by slices, the other by bands.
MODELS = ['lightconv', 'dilatedconv', *(
    pytest.param(model, marks=pytest.mark.slow)
    for model in ('dynamicconv', 'transformer'))]


def _bindings(model):
  # 31 taps take the band matrices, 7 the slices.
  return ['num_layers = 1',
          *(['filter_sizes = [31]'] if model == 'dilatedconv' else [])]


@pytest.fixture
def t5_main():
  """As under T5's main."""
  tf.disable_v2_tensorshape()
  tf.disable_control_flow_v2()
  yield
  tf.enable_v2_tensorshape()
  tf.enable_control_flow_v2()


@pytest.mark.parametrize('phase', xla_operations.PHASES)
@pytest.mark.parametrize('model', MODELS)
def test_a_tpu_can_compile_all_of_it(model, phase, t5_main):
  found = xla_operations.examine(xla_operations.build(
      f'models/{model}.tiny.gin', phase, 'batch:4;model:2', batch=8, inputs=64,
      vocabulary=1000, size=_bindings(model)))
  assert found.types['Einsum'] + found.types['MatMul'] > 10
  assert found.collectives > 0, 'the model is split'
  assert ('LoopCond' in found.types) == (phase == 'decode')
  assert not found.no_kernel and not found.dynamic
  assert not found.host and not found.depthwise


def test_what_does_not_belong_there_is_found():
  with tf.Graph().as_default() as graph:
    def program(x):
      x = tf.Print(x, [x])
      y = tf.raw_ops.Where(condition=x > 0)
      z = tf.strings.as_string(x)
      image = tf.nn.depthwise_conv2d(
          tf.reshape(x, [1, 1, 4, 1]), tf.ones([1, 1, 1, 1]), [1] * 4, 'SAME')
      return x, tf.reduce_sum(y), tf.strings.length(z), image
    tpu.replicate(program, [[tf.zeros([4])]])
  found = xla_operations.examine(graph)
  assert {'AsString(float32, string)', 'Print(float32)',
          'StringLength(string, int32)'} <= set(found.no_kernel)
  assert [name for name in found.dynamic if 'Where' in name]
  assert len(found.host) == 1 and 'Print' in found.host[0]
  assert len(found.depthwise) == 1


def test_dtypes_that_xla_does_not_know_are_found():
  with tf.Graph().as_default() as graph:
    tpu.replicate(lambda x: tf.raw_ops.Invert(x=x),
                  [[tf.zeros([2], tf.uint16)]])
    assert not xla_operations.examine(graph).no_kernel
    tpu.replicate(lambda x: tf.identity(x), [[tf.constant(['text'])]])
  assert 'Identity(string)' in xla_operations.examine(graph).no_kernel


def _decoded(model, compiled):
  """Ids of greedy decoding from the same weights, by XLA or without."""
  harness.parse_gin([f'models/{model}.tiny.gin'],
                    [*harness.TINY, *_bindings(model)])
  source = np.random.RandomState(0).randint(2, harness.VOCABULARY, (3, 9))
  lowerings = []

  def decode(ids):
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    bitransformer = transformer.make_bitransformer(
        harness.VOCABULARY, harness.VOCABULARY)
    decoded = bitransformer.decode(
        mtf.import_tf_tensor(mesh, ids, mtf.Shape([
            mtf.Dimension('batch', 3), mtf.Dimension('length', 9)])),
        max_decode_length=12)
    lowerings.append(harness.lower(graph, mesh))
    return lowerings[0].export_to_tf_tensor(decoded)

  with tf.Graph().as_default(), tf.variable_scope('', use_resource=True):
    ids = tf.constant(source, tf.int32)
    decoded = xla.compile(decode, [ids])[0] if compiled else decode(ids)
    with harness.session() as sess:
      harness.load_weights(sess, {
          v.op.name: harness.initial_weight(v.op.name, v.shape.as_list())
          for v in tf.global_variables()})
      sess.run(lowerings[0].copy_masters_to_slices())
      return sess.run(decoded)


@pytest.mark.parametrize('model', MODELS)
def test_xla_compiles_the_greedy_decode_loop(model, t5_main):
  expected = _decoded(model, compiled=False)
  assert len(np.unique(expected)) > 3, 'it says something'
  np.testing.assert_array_equal(_decoded(model, compiled=True), expected)
