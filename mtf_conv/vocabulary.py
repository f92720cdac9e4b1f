"""Where the SentencePiece model comes from.

In this order: the gin binding `mtf_conv.vocabulary.sentencepiece_model_path`,
the environment variable MTF_CONV_VOCAB, T5's own, which is fetched once and
kept in the user's cache folder. The environment variable MTF_CONV_VOCAB_SOURCES
says from where and in which order: names of SOURCES or addresses, parted by
commas.
"""

import functools
import hashlib
import os
import re

import gin
import seqio
from google.protobuf import message
from sentencepiece import sentencepiece_model_pb2

from mtf_conv.base import errors, files, network

# T5's own: what t5.data.DEFAULT_SPM_PATH names in its bucket, which is reported
# closed, and the same file on the Hugging Face hub.
SOURCES = {
    'bucket': ('https://storage.googleapis.com/t5-data/vocabs/cc_all.32000/'
               'sentencepiece.model'),
    'hub': 'https://huggingface.co/google-t5/t5-base/resolve/main/spiece.model',
}
T5_SHA256 = 'd60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86'
EXTRA_IDS = 100  # T5's sentinels, numbered from the end of the vocabulary.

# How T5's own file names itself, so that an altered copy of it is known.
_T5_MODEL_PREFIX = 'cc_all.32000/sentencepiece'
_REMEDY = ('set MTF_CONV_VOCAB, or bind '
           'mtf_conv.vocabulary.sentencepiece_model_path, to a file you have, '
           'or make one by mtf_conv train_vocabulary')


def cache_path():
  """Returns the path at which T5's own model is kept once downloaded."""
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(cache, 'mtf_conv', 't5.sentencepiece.model')


def _sources():
  """Returns the addresses to try, in their order."""
  names = os.environ.get('MTF_CONV_VOCAB_SOURCES')
  names = re.split(r'\s*,\s*', names.strip()) if names else list(SOURCES)
  for name in names:
    if name not in SOURCES and not files.is_remote(name):
      raise errors.UserError(
          f'MTF_CONV_VOCAB_SOURCES: unknown source {name!r}: expected '
          f'{", ".join(SOURCES)} or an address'
          + errors.nearest(name, SOURCES))
  return [SOURCES.get(name, name) for name in names]


def prepare(raw_dir=None):
  """Puts T5's own model where it is kept.

  Args:
    raw_dir: a folder that holds it under its name in one of SOURCES; it is
      downloaded when None.

  Returns:
    What was done, a line.

  Raises:
    errors.UserError: it is not in the folder, or no source sends it.
  """
  path = cache_path()
  if os.path.exists(path) and files.sha256(path) == T5_SHA256:
    return f"T5's vocabulary is there already: {path}"
  if raw_dir is None:
    network.download(
        _sources(), path, "T5's vocabulary", _REMEDY, sha256=T5_SHA256)
  else:
    _copy(os.path.expanduser(raw_dir), path)
  return f"T5's vocabulary is in {path}"


def _copy(folder, path):
  given = [os.path.join(folder, url.rsplit('/', 1)[1])
           for url in SOURCES.values()]
  found = [name for name in given if os.path.isfile(name)]
  if not found:
    raise errors.UserError(
        f'{" or ".join(given)} does not exist: --raw_dir names the folder that '
        "holds T5's vocabulary")
  with open(found[0], 'rb') as f:
    content = f.read()
  sha256 = hashlib.sha256(content).hexdigest()
  if sha256 != T5_SHA256:
    raise errors.UserError(
        f"{found[0]} is not T5's vocabulary: sha256 expected {T5_SHA256}, "
        f'found {sha256}; to use it all the same, set MTF_CONV_VOCAB to it')
  os.makedirs(os.path.dirname(path), exist_ok=True)
  files.write_whole(path, content)


@gin.configurable('vocabulary', module='mtf_conv')
def _binding(sentencepiece_model_path=None):
  """Returns what gin binds; its errors are raised out of gin's sight."""
  return sentencepiece_model_path


def model_path(download=True):
  """Returns the path of the SentencePiece model, which is there and sound.

  Args:
    download: whether T5's own may be downloaded.

  Returns:
    The path of a local file.

  Raises:
    errors.UserError: the file is missing, altered or no vocabulary for T5.
  """
  path = _binding() or os.environ.get('MTF_CONV_VOCAB')
  if path:
    path = os.path.expanduser(path)
  else:
    path = cache_path()
    if download and not os.path.exists(path):
      prepare()
  try:
    stamp = os.stat(path)
    _check(path, stamp.st_mtime_ns, stamp.st_size)
  except OSError as error:
    raise errors.UserError(
        f"vocabulary {path}: {error.strerror}; sha256 expected {T5_SHA256} "
        f"(T5's own), found no file: {_REMEDY}") from error
  return path


@functools.lru_cache(maxsize=None)
def _check(path, unused_mtime, size):
  """Raises UserError unless the file is a SentencePiece model T5 can use."""
  with open(path, 'rb') as f:
    content = f.read()
  found = hashlib.sha256(content).hexdigest()
  if found == T5_SHA256:
    return
  difference = (f"sha256 expected {T5_SHA256} (T5's own), found {found}, "
                f'{size} bytes')
  model = sentencepiece_model_pb2.ModelProto()
  try:
    model.ParseFromString(content)
  except message.DecodeError:
    model.Clear()
  if not model.pieces:
    raise errors.UserError(
        f'vocabulary {path} is not a SentencePiece model: {difference}')
  spec = model.trainer_spec
  if spec.model_prefix.endswith(_T5_MODEL_PREFIX):
    raise errors.UserError(
        f"vocabulary {path} is an altered copy of T5's own: {difference}")
  # Mesh TensorFlow takes 0 for padding and 1 for the end of a sequence, where
  # SentencePiece's trainer has neither there unless told so.
  if (spec.pad_id, spec.eos_id) != (0, 1):
    raise errors.UserError(
        f'vocabulary {path}: pad_id (={spec.pad_id}) must be 0 and eos_id '
        f'(={spec.eos_id}) must be 1: train it with --pad_id=0 --eos_id=1 '
        '--unk_id=2 --bos_id=-1')


def changed(vocabulary, texts):
  """Finds the texts that a vocabulary cannot write.

  Args:
    vocabulary: a seqio.Vocabulary.
    texts: an iterable of strings.

  Returns:
    A dictionary from each such text to what comes back for it.
  """
  back = {text: vocabulary.decode(vocabulary.encode(text)) for text in texts}
  return {text: other for text, other in back.items() if other != text}


@functools.lru_cache(maxsize=None)
def _load(path, extra_ids):
  return seqio.SentencePieceVocabulary(path, extra_ids)


class ConfiguredVocabulary(seqio.SentencePieceVocabulary):
  """A SentencePiece model whose path is asked for when it is used.

  Tasks are registered before gin is parsed, so a task's features cannot hold
  the path.
  """

  def __init__(self, path_fn=model_path, extra_ids=EXTRA_IDS):
    """Constructor; reads nothing.

    Args:
      path_fn: returns the path of the model.
      extra_ids: the number of sentinels.
    """
    super().__init__(sentencepiece_model_file=None, extra_ids=extra_ids)
    self._path_fn = path_fn

  @property
  def _resolved(self):
    return _load(self._path_fn(), self.extra_ids)

  @property
  def sentencepiece_model_file(self):
    """Path of the model."""
    return self._resolved.sentencepiece_model_file

  @property
  def sp_model(self):
    """The model, serialized, with the extra ids."""
    return self._resolved.sp_model

  @property
  def tokenizer(self):
    """The model, loaded, with the extra ids."""
    return self._resolved.tokenizer

  def load_model(self):
    """Loads the model now."""
    self._resolved.load_model()
