"""T5 with convolutions in the place of self-attention, in PyTorch.

The models of mtf_conv (Tay et al. 2021, 'Are Pre-trained Convolutions Better
than Pre-trained Transformers?'), for Hugging Face's Auto classes. This one file
lies beside the weights, and imports torch and transformers only.

A block of encoder or decoder is a list of layers; each has a norm before it and
a residual around it, as in T5. In the place of self-attention stands

    X1 = (W_I X) * sigmoid(W_S X)
    X2[i] = sum_j filter[j] X1[i + offset_j]
    X3 = W_O X2

In an encoder a filter is centred, in a decoder it is causal. The names of
modules and weights are those of transformers' T5, with LightConv, DynamicConv
or DilatedConv where that has SelfAttention.
"""

import dataclasses
import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

_ALPHA = 0.6  # Of the length penalty, as mtf_conv predict has it.
_MAX_DISTANCE = 128  # From here on T5's relative biases are one.

# What transformers calls the state of decoding; it was renamed in 5.x.
_STATE = next(name for name in ('cache', 'past_key_values')
              if name in Seq2SeqLMOutput.__dataclass_fields__)


class MtfConvConfig(PretrainedConfig):
  """What a model computes.

  Each layer is a dict: its class under 'layer', and the arguments of that
  class.
  """

  model_type = 'mtf_conv'
  keys_to_ignore_at_inference = [
      'past_key_values', 'cache', 'encoder_last_hidden_state']
  attribute_map = {'hidden_size': 'd_model'}

  def __init__(self, vocab_size=32128, d_model=512, encoder_blocks=(),
               decoder_blocks=(), norm_first=True, max_positions=None,
               dropout_rate=0.0, layer_norm_epsilon=1e-6,
               tie_word_embeddings=True, is_encoder_decoder=True,
               pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
               **kwargs):
    """Creates the configuration.

    Args:
      vocab_size: rows of the embedding.
      d_model: channels between the layers.
      encoder_blocks: a list of blocks, each a list of layers.
      decoder_blocks: a list like encoder_blocks.
      norm_first: whether a norm is before its layer, as in T5, or after it.
      max_positions: rows of a table of positions; None for no such table.
      dropout_rate: in training.
      layer_norm_epsilon: of the norms.
      tie_word_embeddings: whether the embedding gives the logits, too.
      is_encoder_decoder: True.
      pad_token_id: 0; padding is told by it.
      eos_token_id: 1.
      decoder_start_token_id: 0, the first id that a decoder reads.
      **kwargs: of PretrainedConfig.
    """
    self.vocab_size = vocab_size
    self.d_model = d_model
    self.encoder_blocks = list(encoder_blocks)
    self.decoder_blocks = list(decoder_blocks)
    self.norm_first = norm_first
    self.max_positions = max_positions
    self.dropout_rate = dropout_rate
    self.layer_norm_epsilon = layer_norm_epsilon
    super().__init__(
        tie_word_embeddings=tie_word_embeddings,
        is_encoder_decoder=is_encoder_decoder, pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        decoder_start_token_id=decoder_start_token_id, **kwargs)

  @property
  def num_hidden_layers(self):
    """The number of decoder blocks."""
    return len(self.decoder_blocks)


class DecodingState:
  """What the decoder keeps between steps; `generate` takes it for a cache.

  A convolution keeps X1 of the last (filter_size - 1) * dilation_rate
  positions, self-attention keys and values of all positions, the attention to
  the encoder keys and values that do not change.

  Attributes:
    length: how many positions have been decoded.
    layers: a dict from layers, by number, to tuples of Tensors whose first
      dimension is the batch.
    memory: such a dict of what belongs to the encoder's output.
    taps: a dict from convolutions, by number, to their static filters, [taps,
      channels].
  """

  is_compileable = False

  def __init__(self):
    self.length = 0
    self.layers = {}
    self.memory = {}
    self.taps = {}

  def get_seq_length(self, *unused_args):
    """Returns how many positions have been decoded."""
    return self.length

  def reorder_cache(self, beam_idx):
    """Has row i go on from row beam_idx[i].

    Beams change places within an example, and its memory is the same for all.
    """
    self.layers = {
        number: tuple(t.index_select(0, beam_idx.to(t.device)) for t in tensors)
        for number, tensors in self.layers.items()}


@dataclasses.dataclass
class _Context:
  """What the layers of a stack share in one pass.

  Attributes:
    mask: [batch, length, 1], 0 for padding; None if there is none.
    segments: [batch, length], the packed example of each position, 0 for
      padding; None if each row is one example.
    biases: a dict from numbers of self-attention layers to what is added to
      their logits, [batch or 1, heads or 1, length, memory].
    memory: the encoder's output.
    memory_bias: what is added to the logits of attention to it, or None.
    state: a DecodingState, or None.
  """

  mask: Optional[torch.Tensor]
  segments: Optional[torch.Tensor]
  biases: dict
  memory: Optional[torch.Tensor] = None
  memory_bias: Optional[torch.Tensor] = None
  state: Optional[DecodingState] = None

  def without_padding(self, x):
    """Returns x, [batch, length, channels], with zeros for padding."""
    return x if self.mask is None else x * self.mask.to(x.dtype)


def _dropout(x, rate, training):
  """Drops channels out of all positions alike, as Mesh TensorFlow does."""
  if not training or not rate:
    return x
  return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), rate)


class RMSNorm(nn.Module):
  """T5's norm: x / sqrt(mean(x^2) + epsilon) * weight, in float32."""

  def __init__(self, d_model, epsilon):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(d_model))
    self.epsilon = epsilon

  def forward(self, x):
    """[..., d_model] -> the same."""
    if x.dtype == torch.float32 and hasattr(F, 'rms_norm'):
      return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon)
    return y.to(x.dtype) * self.weight


class Convolution(nn.Module):
  """The gated convolution; see the top of this file.

  Shapes: [batch, length, d_model] -> the same.
  """

  dynamic = False

  def __init__(self, config, number, causal, num_heads, d_kv, filter_size,
               num_filters, dilation_rate=1, gated=True, softmax=True,
               pointwise=False, use_bias=False, filter_dropout_rate=0.0):
    """Creates the layer.

    Args:
      config: a MtfConvConfig.
      number: of the layer in its stack.
      causal: whether it is a decoder's.
      num_heads: with d_kv, the channels inside.
      d_kv: channels per head.
      filter_size: the number of taps.
      num_filters: of distinct filters, for contiguous groups of heads; None
        for one for every channel.
      dilation_rate: the distance between taps.
      gated: whether X1 is gated.
      softmax: whether a filter is normalised by a softmax over its taps.
      pointwise: whether a product over all channels follows the convolution.
      use_bias: whether products have biases.
      filter_dropout_rate: dropout on the filters, in training.
    """
    super().__init__()
    inner = num_heads * d_kv
    self.number = number
    self.causal = causal
    self.filter_size = filter_size
    self.dilation_rate = dilation_rate
    self.num_groups = num_filters or inner
    self.softmax = softmax
    self.filter_dropout_rate = filter_dropout_rate
    self.wi = nn.Linear(config.d_model, inner, use_bias)
    self.ws = nn.Linear(config.d_model, inner, use_bias) if gated else None
    self.pointwise = nn.Linear(inner, inner, use_bias) if pointwise else None
    self.wo = nn.Linear(inner, config.d_model, use_bias)
    if self.dynamic:
      self.wq = nn.Linear(inner, num_filters * filter_size, use_bias)
    else:
      groups = [num_filters] if num_filters else [num_heads, d_kv]
      self.filters = nn.Parameter(
          torch.randn(*groups, filter_size) * filter_size**-0.5)

  def forward(self, x, context):
    """[batch, length, d_model] -> the same."""
    x = self.wi(x) if self.ws is None else (
        self.wi(x) * torch.sigmoid(self.ws(x)))
    x = context.without_padding(x)
    if (x.shape[1] == 1 and context.state is not None and not self.dynamic
        and context.segments is None and not self.training):
      x = self.step(x, context.state)
    else:
      x = self.mix(x, self.filters_for(x), context)
    if self.pointwise is not None:
      x = self.pointwise(x)
    return self.wo(x)

  def filters_for(self, x1):
    """Returns the filters, [groups, taps], or for each position of X1."""
    filters = self.wq(x1) if self.dynamic else self.filters
    filters = filters.reshape(
        *(x1.shape[:2] if self.dynamic else ()), -1, self.filter_size)
    if self.softmax:
      filters = torch.softmax(filters.float(), -1).to(x1.dtype)
    return F.dropout(filters, self.filter_dropout_rate, self.training)

  def step(self, x, state):
    """`mix` of one position by static filters, which the state keeps."""
    taps = state.taps.get(self.number)
    if taps is None:
      taps = state.taps[self.number] = self.filters_for(x).repeat_interleave(
          x.shape[2] // self.num_groups, 0).t().contiguous()
    window = self.with_neighbours(x, state)
    return (window[:, ::self.dilation_rate] * taps).sum(1, keepdim=True)

  def mix(self, x, filters, context):
    """Convolves X1, [batch, length, inner], with the filters."""
    length = x.shape[1]
    rate = self.dilation_rate
    window = self.with_neighbours(x, context.state)
    if context.segments is not None:
      # A tap that falls on another example counts as zero.
      before, after = self.padding()
      segments = F.pad(context.segments, (before, after))
      same = torch.stack([
          segments[:, t * rate:t * rate + length] == context.segments
          for t in range(self.filter_size)], -1)
      filters = filters * same[:, :, None].to(x.dtype)
    if filters.ndim == 2 and length > 1:
      weight = filters.repeat_interleave(x.shape[2] // self.num_groups, 0)
      return F.conv1d(
          window.transpose(1, 2), weight[:, None], dilation=rate,
          groups=x.shape[2]).transpose(1, 2)
    window = window.unflatten(2, (self.num_groups, -1))
    if length == 1:
      filters = filters if filters.ndim == 2 else filters[:, 0]
      y = (window[:, ::rate] * filters.transpose(-1, -2)[..., None]).sum(1)
      return y.flatten(1)[:, None]
    y = sum(window[:, t * rate:t * rate + length] * filters[..., t, None]
            for t in range(self.filter_size))
    return y.flatten(2)

  def padding(self):
    """Returns how many positions before and after a sequence are read."""
    after = 0 if self.causal else (self.filter_size - 1) // 2
    return ((self.filter_size - 1 - after) * self.dilation_rate,
            after * self.dilation_rate)

  def with_neighbours(self, x, state):
    """Returns X1 with what stands before and after it; moves the state on."""
    before, after = self.padding()
    if state is None:
      return F.pad(x, (0, 0, before, after))
    history, = state.layers.get(
        self.number, (x.new_zeros(x.shape[0], before, x.shape[2]),))
    window = torch.cat([history, x], 1)
    state.layers[self.number] = (window[:, window.shape[1] - before:],)
    return window


class DynamicConvolution(Convolution):
  """A convolution whose filter at position i is a function of X1 at i."""

  dynamic = True


class Attention(nn.Module):
  """T5's attention: logits are not scaled, and there are no biases.

  Shapes: [batch, length, d_model] -> the same.
  """

  to_memory = False

  def __init__(self, config, number, causal, num_heads, d_kv,
               num_buckets=None):
    """Creates the layer.

    Args:
      config: a MtfConvConfig.
      number: of the layer in its stack.
      causal: whether it is a decoder's.
      num_heads: the number of heads.
      d_kv: channels per head.
      num_buckets: of relative positions, in self-attention. None: those of the
        layer before it with as many heads, if there is one.
    """
    super().__init__()
    inner = num_heads * d_kv
    self.number = number
    self.causal = causal
    self.num_heads = num_heads
    self.dropout_rate = config.dropout_rate
    self.q = nn.Linear(config.d_model, inner, False)
    self.k = nn.Linear(config.d_model, inner, False)
    self.v = nn.Linear(config.d_model, inner, False)
    self.o = nn.Linear(inner, config.d_model, False)
    self.q_std = (config.d_model * d_kv)**-0.5
    self.num_buckets = num_buckets
    if num_buckets:
      self.relative_attention_bias = nn.Embedding(num_buckets, num_heads)

  def forward(self, x, context):
    """[batch, length, d_model] -> the same."""
    state = context.state
    if self.to_memory:
      bias = context.memory_bias
      kept = state.memory if state is not None else {}
      keys_and_values = kept.get(self.number)
      if keys_and_values is None:
        keys_and_values = self.keys_and_values(context.memory)
        kept[self.number] = keys_and_values
    else:
      bias = context.biases[self.number]
      keys_and_values = self.keys_and_values(x)
      if state is not None:
        if self.number in state.layers:
          keys_and_values = tuple(
              torch.cat(pair, 2)
              for pair in zip(state.layers[self.number], keys_and_values))
        state.layers[self.number] = keys_and_values
    y = F.scaled_dot_product_attention(
        self.heads(self.q(x)), *keys_and_values, attn_mask=bias, scale=1.0,
        dropout_p=self.dropout_rate if self.training else 0.0)
    return self.o(y.transpose(1, 2).flatten(2))

  def heads(self, x):
    """[batch, length, inner] -> [batch, heads, length, d_kv]."""
    return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

  def keys_and_values(self, x):
    """Returns a pair of Tensors, [batch, heads, length, d_kv]."""
    return self.heads(self.k(x)), self.heads(self.v(x))

  def relative_bias(self, distance):
    """Returns the bias of each head.

    Args:
      distance: [length, memory], how far before the query a key stands.

    Returns:
      A Tensor, [1, heads, length, memory].
    """
    buckets = relative_buckets(distance, self.num_buckets, self.causal)
    return self.relative_attention_bias(buckets).permute(2, 0, 1)[None]


class MemoryAttention(Attention):
  """Attention to the encoder's output."""

  to_memory = True


def relative_buckets(distance, num_buckets, causal):
  """Returns the bucket of each distance, as T5 has them.

  Args:
    distance: an integer Tensor, how far before the query a key stands.
    num_buckets: an integer.
    causal: whether all of them are for keys that are not in the future.

  Returns:
    An integer Tensor of the shape of distance.
  """
  first = torch.zeros_like(distance)
  if causal:
    distance = distance.clamp(min=0)
  else:
    num_buckets //= 2
    first = (distance < 0).long() * num_buckets
    distance = distance.abs()
  exact = num_buckets // 2
  far = exact + (
      torch.log(distance.clamp(min=1).float() / exact)
      / math.log(_MAX_DISTANCE / exact) * (num_buckets - exact)).long()
  return first + torch.where(
      distance < exact, distance, far.clamp(max=num_buckets - 1))


_ACTIVATIONS = {
    'relu': F.relu, 'gelu': lambda x: F.gelu(x, approximate='tanh'),
    'linear': lambda x: x, 'sigmoid': torch.sigmoid, 'tanh': torch.tanh,
    'swish': F.silu, 'silu': F.silu}


class FeedForward(nn.Module):
  """T5's feed-forward layer; with several activations their product."""

  def __init__(self, config, number, causal, d_ff, activations,
               use_bias=False):
    """Creates the layer.

    Args:
      config: a MtfConvConfig.
      number: of the layer in its stack.
      causal: whether it is a decoder's.
      d_ff: channels inside.
      activations: a list of names.
      use_bias: whether products have biases.
    """
    super().__init__()
    del number, causal
    self.dropout_rate = config.dropout_rate
    self.activations = [_ACTIVATIONS[name] for name in activations]
    self.names = ['wi'] if len(activations) == 1 else [
        f'wi_{i}' for i in range(len(activations))]
    for name in self.names:
      self.add_module(name, nn.Linear(config.d_model, d_ff, use_bias))
    self.wo = nn.Linear(d_ff, config.d_model, use_bias)

  def forward(self, x, context):
    """[batch, length, d_model] -> the same."""
    del context
    factors = [activation(getattr(self, name)(x))
               for name, activation in zip(self.names, self.activations)]
    y = math.prod(factors[1:], start=factors[0])
    return self.wo(_dropout(y, self.dropout_rate, self.training))


LAYERS = {
    'LightConv': Convolution, 'DilatedConv': Convolution,
    'DynamicConv': DynamicConvolution, 'SelfAttention': Attention,
    'EncDecAttention': MemoryAttention, 'DenseReluDense': FeedForward}


class Sublayer(nn.Module):
  """A layer with its norm and residual."""

  def __init__(self, config, layer, **arguments):
    super().__init__()
    self.name = layer
    self.add_module(layer, LAYERS[layer](config, **arguments))
    self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
    self.norm_first = config.norm_first
    self.dropout_rate = config.dropout_rate

  def forward(self, x, context):
    """[batch, length, d_model] -> the same."""
    y = self.layer_norm(x) if self.norm_first else x
    y = getattr(self, self.name)(context.without_padding(y), context)
    if not self.norm_first:
      y = self.layer_norm(y)
    return x + _dropout(y, self.dropout_rate, self.training)


class Block(nn.Module):
  """Sublayers, one after the other."""

  def __init__(self, config, layers, first_number, causal):
    super().__init__()
    self.layer = nn.ModuleList(
        Sublayer(config, number=first_number + i, causal=causal, **layer)
        for i, layer in enumerate(layers))

  def forward(self, x, context):
    """[batch, length, d_model] -> the same."""
    for layer in self.layer:
      x = layer(x, context)
    return x


class Stack(nn.Module):
  """An encoder's or a decoder's blocks, and the final norm."""

  main_input_name = 'input_ids'  # transformers asks an encoder for it.

  def __init__(self, config, blocks, causal, embed):
    """Creates the stack.

    Args:
      config: a MtfConvConfig.
      blocks: a list of lists of layers.
      causal: whether it is a decoder.
      embed: a function from ids, their segments and the position of the first
        one to embeddings. The model has its weights.
    """
    super().__init__()
    self.causal = causal
    self.dropout_rate = config.dropout_rate
    self.pad_token_id = config.pad_token_id
    self.gradient_checkpointing = False
    self._embed = embed
    self.block = nn.ModuleList()
    number = 0
    for layers in blocks:
      self.block.append(Block(config, layers, number, causal))
      number += len(layers)
    self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

  def forward(self, input_ids=None, attention_mask=None, segment_ids=None,
              memory=None, memory_mask=None, memory_segments=None, state=None,
              return_dict=True, **unused_kwargs):
    """Computes the stack's output.

    Args:
      input_ids: [batch, length].
      attention_mask: [batch, length], 0 for padding; None: padding is told by
        its id in an encoder, and there is none in a decoder. With a state, it
        is for what was decoded before, too.
      segment_ids: [batch, length], the packed example, from 1, that each
        position belongs to, 0 for padding; None if a row is one example.
      memory: the encoder's output, [batch, memory, d_model], for a decoder.
      memory_mask: [batch, memory], as attention_mask.
      memory_segments: [batch, memory], as segment_ids.
      state: a DecodingState, which is moved on, or None.
      return_dict: whether a BaseModelOutput is returned or a tuple.
      **unused_kwargs: what transformers passes to any encoder.

    Returns:
      A BaseModelOutput: last_hidden_state is [batch, length, d_model].
    """
    start = state.length if state is not None else 0
    length = input_ids.shape[1]
    mask = attention_mask
    if segment_ids is not None:
      mask = segment_ids != 0
    elif mask is None and not self.causal:
      mask = input_ids != self.pad_token_id
    x = self._embed(input_ids, segment_ids, start)
    context = _Context(
        mask=None if mask is None else mask[:, -length:, None].bool(),
        segments=segment_ids,
        biases=self._biases(length, start, mask, segment_ids, x),
        memory=memory, state=state, memory_bias=_masked(
            _visible(segment_ids, memory_mask, memory_segments), None, x.dtype))
    x = _dropout(x, self.dropout_rate, self.training)
    for block in self.block:
      if self.gradient_checkpointing and self.training:
        x = self._gradient_checkpointing_func(block.__call__, x, context)
      else:
        x = block(x, context)
    x = _dropout(self.final_layer_norm(x), self.dropout_rate, self.training)
    if state is not None:
      state.length += length
    output = BaseModelOutput(last_hidden_state=context.without_padding(x))
    return output if return_dict else output.to_tuple()

  def _biases(self, length, start, mask, segments, x):
    """What is added to the logits of each self-attention, by its number."""
    found, by_heads = {}, {}
    for layer in self._self_attentions():
      if not found:
        positions = torch.arange(start + length, device=x.device)
        distance = positions[start:, None] - positions
        visible = _visible(segments, mask, segments)
        if self.causal:
          visible = distance >= 0 if visible is None else (
              visible & (distance >= 0))
      if layer.num_buckets:
        by_heads[layer.num_heads] = layer.relative_bias(distance).to(x.dtype)
      bias = by_heads.get(layer.num_heads)
      found[layer.number] = _masked(visible, bias, x.dtype)
    return found

  def _self_attentions(self):
    for block in self.block:
      for layer in block.layer:
        if layer.name == 'SelfAttention':
          yield layer.SelfAttention


def _visible(segments, memory_mask, memory_segments):
  """Which memory each position may read: [batch, 1, length or 1, memory]."""
  if segments is not None and memory_segments is not None:
    return (segments[:, :, None] == memory_segments[:, None])[:, None]
  if memory_mask is not None:
    return memory_mask[:, None, None].bool()
  return None


def _masked(visible, bias, dtype):
  """Adds to a bias, or to 0, the lowest number where nothing may be read."""
  if visible is None:
    return bias
  if bias is None:
    bias = torch.zeros((), dtype=dtype, device=visible.device)
  return torch.where(visible, bias, torch.finfo(dtype).min)


def beam_search(model, input_ids, generation_config, logits_processor=(),
                stopping_criteria=(), synced_gpus=False, **kwargs):
  """Searches as Mesh TensorFlow does; `custom_generate` of transformers.

  Of the 2 * num_beams likeliest continuations, those that end compete with the
  answers that have ended before, the others go on. The log-likelihood of an
  answer of n tokens, its end included, is divided by
  ((5 + n) / 6)^length_penalty (Wu et al., 2016, equation 14). What has not
  ended counts only where nothing has.

  Args:
    model: the model.
    input_ids: [batch * num_beams, length], what the decoder has read.
    generation_config: num_beams, num_return_sequences, length_penalty,
      max_length and return_dict_in_generate.
    logits_processor: is given the log-probabilities.
    stopping_criteria: those of transformers: the length and the end.
    synced_gpus: must be False.
    **kwargs: of the model.

  Returns:
    [batch * num_return_sequences, length], the best first; or a
    GenerateBeamEncoderDecoderOutput.

  Raises:
    ValueError: it is to be stopped by something else, or on several GPUs.
  """
  if synced_gpus:
    raise ValueError('a beam search cannot be synchronised over GPUs')
  for criterion in stopping_criteria:
    name = type(criterion).__name__
    if name not in ('MaxLengthCriteria', 'EosTokenCriteria'):
      raise ValueError(f'a beam search cannot be stopped by {name}')
  beams, config = generation_config.num_beams, model.config
  alpha, dead = generation_config.length_penalty, -1e7
  alpha = _ALPHA if alpha is None else alpha
  returned = generation_config.num_return_sequences or 1
  alive = input_ids.unflatten(0, (-1, beams))
  batch, _, begin = alive.shape
  length = generation_config.max_length - begin
  offsets = beams * torch.arange(batch, device=alive.device)[:, None]
  log_probs = torch.full((batch, beams), dead, device=alive.device)
  log_probs[:, 0] = 0.0
  scores = torch.full_like(log_probs, dead)
  ended = torch.zeros_like(scores, dtype=torch.bool)
  answers = F.pad(alive, (0, length), value=config.pad_token_id)
  steps = []

  def penalty(tokens):
    return ((5 + tokens) / 6)**alpha

  for i in range(length):
    output = model(**model.prepare_inputs_for_generation(
        alive.flatten(0, 1), **kwargs), return_dict=True)
    kwargs[_STATE] = getattr(output, _STATE, None)
    found = output.logits[:, -1].float().log_softmax(-1)
    if logits_processor:
      found = logits_processor(alive.flatten(0, 1), found)
    found = found + log_probs.reshape(-1, 1)
    if generation_config.output_scores:
      steps.append(found)
    vocabulary = found.shape[-1]
    best, index = (found / penalty(i + 1)).view(batch, -1).topk(2 * beams)
    source, ids = index // vocabulary, index % vocabulary
    grown = torch.cat([_of(alive, source), ids[..., None]], -1)
    ends = ids == config.eos_token_id
    kept = (best + dead * ends).topk(beams).indices
    alive, source = _of(grown, kept), source.gather(1, kept)
    log_probs = (best * penalty(i + 1)).gather(1, kept)
    if kwargs[_STATE] is not None:
      kwargs[_STATE].reorder_cache((source + offsets).flatten())
    grown = F.pad(grown, (0, length - 1 - i), value=config.pad_token_id)
    scores, chosen = torch.cat(
        [scores, best + dead * ~ends], 1).topk(beams)
    answers = _of(torch.cat([answers, grown], 1), chosen)
    ended = torch.cat([ended, ends], 1).gather(1, chosen)
    worst = (scores * ended).min(1).values + dead * ~ended.any(1)
    if (worst > log_probs[:, 0] / penalty(length)).all():
      break
  none = ~ended.any(1, keepdim=True)
  alive = F.pad(alive, (0, answers.shape[-1] - alive.shape[-1]),
                value=config.pad_token_id)
  answers = torch.where(none[..., None], alive, answers)[:, :returned]
  scores = torch.where(none, log_probs, scores)[:, :returned]
  known = (answers != config.pad_token_id).any(0).any(0).nonzero()
  longest = max([begin - 1, *known.flatten().tolist()]) + 1
  answers = answers[..., :longest].flatten(0, 1)
  if not generation_config.return_dict_in_generate:
    return answers
  return GenerateBeamEncoderDecoderOutput(
      sequences=answers, sequences_scores=scores.flatten(),
      scores=tuple(steps) or None)


def _of(beams, index):
  """Takes beams by their number: [batch, beams, length]."""
  return beams.gather(1, index[..., None].expand(-1, -1, beams.shape[-1]))


class MtfConvForConditionalGeneration(PreTrainedModel, GenerationMixin):
  """An encoder-decoder of a MtfConvConfig."""

  config_class = MtfConvConfig
  base_model_prefix = 'model'
  main_input_name = 'input_ids'
  supports_gradient_checkpointing = True
  _no_split_modules = ['Block']
  _supports_sdpa = True
  # A state cannot go back to an earlier position, as a cache of keys can.
  _is_stateful = True

  def __init__(self, config):
    """Creates the model, with weights as T5 starts with."""
    super().__init__(config)
    self.shared = nn.Embedding(config.vocab_size, config.d_model)
    self.positions = None if config.max_positions is None else (
        nn.Embedding(config.max_positions, config.d_model))
    self.encoder = Stack(config, config.encoder_blocks, False, self._embed)
    self.decoder = Stack(config, config.decoder_blocks, True, self._embed)
    self.lm_head = None if config.tie_word_embeddings else (
        nn.Linear(config.d_model, config.vocab_size, False))
    self.post_init()

  def forward(self, input_ids=None, attention_mask=None, decoder_input_ids=None,
              decoder_attention_mask=None, encoder_outputs=None, labels=None,
              segment_ids=None, decoder_segment_ids=None, past_key_values=None,
              cache=None, use_cache=None, num_items_in_batch=None,
              return_dict=True, **unused_kwargs):
    """Computes logits, and a loss where there are labels.

    Args:
      input_ids: [batch, length].
      attention_mask: [batch, length], 0 for padding; None: padding is told by
        its id.
      decoder_input_ids: [batch, targets]; the labels, shifted, when None. With
        a state, those that were not decoded yet.
      decoder_attention_mask: [batch, targets], those decoded before included.
      encoder_outputs: what the encoder returned, instead of input_ids.
      labels: [batch, targets]; -100 and 0, the id of padding, do not count.
      segment_ids: [batch, length], which packed example each position belongs
        to, from 1; 0 for padding. None: a row is one example.
      decoder_segment_ids: [batch, targets], as segment_ids.
      past_key_values: a DecodingState, which is moved on.
      cache: the same, under its later name.
      use_cache: whether to begin a DecodingState where none is given.
      num_items_in_batch: what the sum over the labels is divided by; None for
        their number. transformers' Trainer gives it when it adds up gradients.
      return_dict: whether a Seq2SeqLMOutput is returned or a tuple.
      **unused_kwargs: what transformers passes to any model.

    Returns:
      A Seq2SeqLMOutput; loss comes first, or logits where there is none.
    """
    state = past_key_values if cache is None else cache
    if state is None and use_cache and labels is None:
      state = DecodingState()
    if attention_mask is None and input_ids is not None:
      attention_mask = input_ids != self.config.pad_token_id
    if encoder_outputs is None:
      encoder_outputs = self.encoder(input_ids, attention_mask, segment_ids)
    if decoder_input_ids is None:
      decoder_input_ids = self.shifted(labels, decoder_segment_ids)
    x = self.decoder(
        decoder_input_ids, decoder_attention_mask, decoder_segment_ids,
        encoder_outputs[0], attention_mask, segment_ids, state)[0]
    if self.lm_head is None:
      logits = F.linear(x * self.config.d_model**-0.5, self.shared.weight)
    else:
      logits = self.lm_head(x)
    loss = None
    if labels is not None:
      labels = labels.masked_fill(labels == self.config.pad_token_id, -100)
      count = ((labels != -100).sum() if num_items_in_batch is None
               else num_items_in_batch)
      loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(),
                             reduction='sum') / count
    output = Seq2SeqLMOutput(
        loss=loss, logits=logits, encoder_last_hidden_state=encoder_outputs[0],
        **{_STATE: state})
    return output if return_dict else output.to_tuple()

  def generate(self, inputs=None, generation_config=None, custom_generate=None,
               **kwargs):
    """As of transformers; several beams without sampling by `beam_search`.

    Its length_penalty is 0.6 where neither an argument nor a generation_config
    says it.
    """
    config = generation_config or self.generation_config
    beams, sampled = (
        kwargs[name] if name in kwargs else getattr(config, name)
        for name in ('num_beams', 'do_sample'))
    if custom_generate is None and (beams or 1) > 1 and not sampled:
      custom_generate = beam_search
      if generation_config is None:
        kwargs.setdefault('length_penalty', _ALPHA)
    return super().generate(inputs, generation_config,
                            custom_generate=custom_generate, **kwargs)

  def shifted(self, labels, segment_ids=None):
    """Returns what the decoder reads: at position i, the label of i - 1."""
    ids = F.pad(labels.clamp(min=self.config.pad_token_id)[:, :-1], (1, 0),
                value=self.config.decoder_start_token_id)
    if segment_ids is not None:
      first = segment_ids != F.pad(segment_ids[:, :-1], (1, 0))
      ids = ids.masked_fill(first, self.config.decoder_start_token_id)
    return ids

  def prepare_decoder_input_ids_from_labels(self, labels):
    """See `shifted`; transformers' collators call it so."""
    return self.shifted(labels)

  def get_encoder(self, *unused_args, **unused_kwargs):
    """Returns the encoder."""
    return self.encoder

  def get_decoder(self):
    """Returns the decoder."""
    return self.decoder

  def get_input_embeddings(self):
    """Returns the embedding."""
    return self.shared

  def set_input_embeddings(self, value):
    """Sets the embedding."""
    self.shared = value

  def get_output_embeddings(self):
    """Returns what gives the logits; None if the embedding does."""
    return self.lm_head

  def set_output_embeddings(self, value):
    """Sets what gives the logits."""
    self.lm_head = value

  def prepare_inputs_for_generation(
      self, input_ids, past_key_values=None, cache=None, attention_mask=None,
      decoder_attention_mask=None, encoder_outputs=None, use_cache=True,
      **unused_kwargs):
    """Returns the arguments of `forward` for the next step."""
    state = past_key_values if cache is None else cache
    if state is not None:
      input_ids = input_ids[:, state.get_seq_length():]
    return {
        'decoder_input_ids': input_ids, 'past_key_values': state,
        'attention_mask': attention_mask, 'encoder_outputs': encoder_outputs,
        'decoder_attention_mask': decoder_attention_mask,
        'use_cache': use_cache}

  @classmethod
  def _supports_default_dynamic_cache(cls):
    return False  # `forward` begins a DecodingState.

  def _embed(self, ids, segment_ids, start):
    x = self.shared(ids)
    if self.positions is None:
      return x
    index = torch.arange(start, start + ids.shape[1], device=ids.device)
    if segment_ids is not None:
      # Of a packed example, counted from its first position.
      first = segment_ids != F.pad(segment_ids[:, :-1], (1, 0))
      index = index - torch.cummax(index * first, 1).values
    return x + self.positions(index)

  def _init_weights(self, module):
    if isinstance(module, Attention):
      nn.init.normal_(module.q.weight, std=module.q_std)
    elif isinstance(module, nn.Linear):
      nn.init.normal_(module.weight, std=module.in_features**-0.5)
      if module.bias is not None:
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
      nn.init.normal_(module.weight)
    elif isinstance(module, RMSNorm):
      nn.init.ones_(module.weight)
    elif isinstance(module, Convolution) and not module.dynamic:
      nn.init.normal_(module.filters, std=module.filter_size**-0.5)
