"""The private names of other libraries that docs/patches.md lists are there."""

import inspect
import re
from importlib import metadata

import gin
import mesh_tensorflow as mtf
import pages
import pytest
import seqio
import tensorflow.compat.v1 as tf
import tensorflow_estimator
from mesh_tensorflow.transformer import (
    transformer,
    transformer_layers,
    utils,
)
from t5.models import mtf_model
from t5.models import utils as t5_utils
from tensorflow.python.compiler.xla import xla
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util
from tensorflow.python.tpu import tpu_replication
from tensorflow.python.util import tf_export
from tensorflow_datasets.core.download import resource
from tensorflow_estimator.python.estimator.tpu import tpu_context

from mtf_conv import vocabulary

PAGE = (pages.ROOT / 'docs' / 'patches.md').read_text()
ESTIMATOR = tf.estimator.tpu.TPUEstimator
# The name, the distribution it is of, and what has it: an object, or an object
# in whose source it is set.
NAMES = [
    ('register_tensor_conversion_function', 'tensorflow', ops),
    *[(name, 'tensorflow', tf_export)
      for name in ('ESTIMATOR_API_NAME', 'API_ATTRS', 'API_ATTRS_V1',
                   'TENSORFLOW_API_NAME')],
    ('_api', 'tensorflow-estimator', tensorflow_estimator),
    ('_create_global_step', 'tensorflow', ESTIMATOR),
    ('_config', 'tensorflow', ESTIMATOR.__mro__[1].__init__),
    ('_session_config', 'tensorflow', ESTIMATOR.__mro__[1].__init__),
    ('_ctx', 'tensorflow', ESTIMATOR.__init__),
    ('_use_tpu', 'tensorflow', tpu_context._InternalTPUContext.__init__),
    ('GraphOrParentsInXlaContext', 'tensorflow', control_flow_util),
    ('GetContainingXLAContext', 'tensorflow', control_flow_util),
    ('_get_control_flow_context', 'tensorflow', tf.Graph),
    ('TPUReplicateContext', 'tensorflow', tpu_replication),
    ('XLACompileContext', 'tensorflow', xla),
    *[(name, 'mesh-tensorflow', mtf.simd_mesh_impl)
      for name in ('tpu_ops', 'SimdMeshImpl')],
    ('LaidOutVariable', 'mesh-tensorflow', mtf.simd_mesh_impl.SimdMeshImpl),
    *[(name, 'mesh-tensorflow', transformer.VocabEmbedding.__init__)
      for name in ('_embedding_weights', '_vocab_dim', '_output_dim',
                   '_scale_variable_like_classifier_weights')],
    *[(f'_sublayers_{part}', 'mesh-tensorflow', transformer.LayerStack.__init__)
      for part in ('initial', 'per_layer', 'final')],
    *[(name, 'mesh-tensorflow', mtf.optimize.AdafactorOptimizer)
      for name in ('_factored_dims', '_parameter_scale')],
    # gin has wrapped the constructor.
    *[(name, 'mesh-tensorflow',
       inspect.unwrap(mtf.optimize.AdafactorOptimizer.__init__))
      for name in ('_decay_rate', '_learning_rate', '_epsilon1', '_epsilon2',
                   '_beta1', '_stacked_dim_names', '_clipping_threshold',
                   '_multiply_by_parameter_scale',
                   '_exclude_from_parameter_scale')],
    *[('attention_fn', 'mesh-tensorflow', layer) for layer in (
        transformer_layers.SelfAttention, transformer_layers.EncDecAttention)],
    ('_loss_fn', 'mesh-tensorflow', transformer.Unitransformer.__init__),
    ('_compute_loss', 'mesh-tensorflow', transformer.Unitransformer),
    ('_call_internal', 'mesh-tensorflow', transformer.Unitransformer),
    ('_shared_params', 'mesh-tensorflow', transformer.Bitransformer),
    ('beam_search', 'mesh-tensorflow', mtf.beam_search),
    *[(name, 'mesh-tensorflow', utils) for name in (
        'write_lines_to_file', 'get_inputs_from_file', 'encode_inputs',
        'get_estimator', 'export_model')],
    ('get_vocabulary', 't5', t5_utils),
    ('_depthwise_conv1d_hack', 'mesh-tensorflow', mtf.layers),
    *[(name, 'seqio', seqio.SentencePieceVocabulary)
      for name in ('sentencepiece_model_file', 'sp_model', 'tokenizer')],
    ('get_dl_fname', 'tensorflow-datasets', resource),
    ('_REGISTRY', 'gin-config', gin.config),
]


@pytest.mark.parametrize('name, distribution, where', NAMES,
                         ids=[name for name, *_ in NAMES])
def test_a_private_name_is_there(name, distribution, where):
  assert re.search(rf'\b{name}\b', PAGE), f'{name} is not on the page'
  there = hasattr(where, name) or (
      inspect.isfunction(where)
      and re.search(rf'self\.{name}\b.*=', inspect.getsource(where)))
  version = metadata.version(distribution)
  assert there, f'{distribution} {version} has no {name}: see docs/patches.md'


def test_properties_are_those_of_seqio():
  for name in ('sentencepiece_model_file', 'sp_model', 'tokenizer'):
    assert isinstance(
        getattr(seqio.SentencePieceVocabulary, name), property), name
    assert name in vars(vocabulary.ConfiguredVocabulary)


def test_the_global_step_is_the_first_variable():
  """Whoever creates it can say how all that follow are made."""
  source = inspect.getsource(ESTIMATOR.__mro__[1]._train_model_default)
  assert source.index('global_step') < source.index('_call_model_fn')


def test_the_loss_of_a_unitransformer_is_asked_for_first():
  source = inspect.getsource(transformer.Unitransformer._compute_loss)
  assert 'if self._loss_fn:' in source


def test_what_is_replaced_is_called_by_its_name():
  """A function that others hold on to would stay as it was."""
  def source(function):
    return inspect.getsource(inspect.unwrap(function))

  assert 'get_estimator,' in source(utils.run)
  assert 'export_model(' in source(utils.run)
  assert 'mtf_utils.get_estimator(' in source(mtf_model.MtfModel.estimator)
  assert 'mtf_utils.export_model(' in source(mtf_model.MtfModel.export)
  assert 'get_inputs_from_file(' in source(utils.decode_from_file)
  assert 'encode_inputs(' in source(utils.score_from_strings)
  assert 'write_lines_to_file(' in source(utils.save_scores)
  assert 'hasattr(vocab, "decode_tf")' in source(utils.tpu_estimator_model_fn)
  assert 'utils.get_vocabulary()' in source(mtf_model.MtfModel.predict)


def test_every_private_name_is_on_the_page():
  package = pages.ROOT / 'mtf_conv'
  of_others = re.compile(r'(?<!self)(?<!cls)\.(_[a-z]\w+)\b')
  ours = re.compile(r'(?:def|class) (_\w+)|^\s*(?:self\.)?(_\w+) =', re.M)
  found, defined = {}, {'_asdict', '_exit', '_fields', '_field_defaults',
                    '_forward', '_replace'}
  for path in [*package.rglob('*.py'), *(pages.ROOT / 'tasks').glob('*.py')]:
    text = path.read_text()
    for name in of_others.findall(text):
      found.setdefault(name, path)
    defined |= {name for names in ours.findall(text) for name in names}
  for name, path in found.items():
    assert name in defined or re.search(rf'\b{name}\b', PAGE), (
        f'{path}: {name} is not in docs/patches.md')
