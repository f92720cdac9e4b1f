"""Tests of the vocabulary and of its way to the network."""

import copy
import functools
import hashlib
import http.server
import os
import re
import socket
import threading
import time
import urllib.request

import gin
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_vocabulary
from sentencepiece import sentencepiece_model_pb2

from mtf_conv import cli, vocabulary
from mtf_conv.base import errors, network


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  folder = tmp_path_factory.mktemp('models')
  return [tiny_vocabulary.write(folder / '0.model'),
          tiny_vocabulary.write(folder / '1.model', model_type='char',
                                hard_vocab_limit=False)]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
  monkeypatch.delenv('MTF_CONV_VOCAB', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
    monkeypatch.delenv(name, raising=False)
  gin.clear_config()
  yield
  gin.clear_config()


@pytest.fixture
def no_network(monkeypatch):
  """A network in which looking up a name does not come back."""
  monkeypatch.setattr(socket, 'create_connection',
                      lambda *args, **kwargs: time.sleep(60))
  monkeypatch.setattr(network, '_TIMEOUT_SECONDS', 0.2)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
  """A server on this machine that holds what T5's bucket does."""
  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      pass

  folder = tmp_path / 'bucket'
  folder.mkdir()
  with http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(Quiet, directory=folder)) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(vocabulary, 'SOURCES', {
        'bucket': f'{address}/spm.model', 'hub': f'{address}/spiece.model'})
    yield folder / 'spm.model'
    server.shutdown()


def test_a_task_made_before_gin_is_parsed_uses_what_gin_names(models):
  vocab = vocabulary.ConfiguredVocabulary()
  feature = seqio.Feature(vocab)
  gin.parse_config(
      f"mtf_conv.vocabulary.sentencepiece_model_path = '{models[0]}'")
  expected = seqio.SentencePieceVocabulary(models[0], 100)
  text = 'bako lime <extra_id_0> rosa'
  assert feature.vocabulary.vocab_size == expected.vocab_size == 350
  assert vocab.encode(text) == expected.encode(text)
  assert vocab.encode('<extra_id_0>') == [349]
  encoded, = tfds.as_numpy(
      tf.data.Dataset.from_tensors(text).map(vocab.encode_tf))
  assert list(encoded) == expected.encode(text)
  assert vocab.decode(vocab.encode(text)) == text
  assert (vocab.pad_id, vocab.eos_id, vocab.unk_id) == (0, 1, 2)
  assert vocab.sentencepiece_model_file == models[0]


def test_gin_comes_before_the_environment(models, monkeypatch):
  monkeypatch.setenv('MTF_CONV_VOCAB', models[1])
  vocab = vocabulary.ConfiguredVocabulary()
  assert vocab.sentencepiece_model_file == models[1]
  with gin.unlock_config():
    gin.bind_parameter(
        'mtf_conv.vocabulary.sentencepiece_model_path', models[0])
  assert vocab.sentencepiece_model_file == models[0]


def test_copies_are_equal_and_none_reads_a_file():
  vocab = vocabulary.ConfiguredVocabulary()
  assert copy.deepcopy(vocab) == vocab == vocabulary.ConfiguredVocabulary()
  assert vocab != vocabulary.ConfiguredVocabulary(extra_ids=0)
  assert vocab != vocabulary.ConfiguredVocabulary(lambda: 'other.model')


def test_missing_file(monkeypatch, tmp_path):
  path = tmp_path / 'gone.model'
  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))
  with pytest.raises(errors.UserError) as error:
    vocabulary.model_path()
  message = str(error.value)
  assert message.startswith(f'vocabulary {path}: No such file or directory')
  assert f"expected {vocabulary.T5_SHA256} (T5's own), found no" in message
  assert '\n' not in message


@pytest.mark.parametrize('content', [b'', b'<html>403</html>', None])
def test_a_file_that_is_no_model(content, models, monkeypatch, tmp_path):
  if content is None:  # The download of a model, broken off.
    with open(models[0], 'rb') as f:
      content = f.read()[:-700]
  path = tmp_path / 'broken.model'
  path.write_bytes(content)
  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))
  with pytest.raises(errors.UserError) as error:
    vocabulary.model_path()
  assert str(error.value) == (
      f'vocabulary {path} is not a SentencePiece model: sha256 expected '
      f"{vocabulary.T5_SHA256} (T5's own), found "
      f'{hashlib.sha256(content).hexdigest()}, {len(content)} bytes')


def test_an_altered_copy_of_t5s_own(models, monkeypatch, tmp_path):
  model = sentencepiece_model_pb2.ModelProto()
  with open(models[0], 'rb') as f:
    model.ParseFromString(f.read())
  model.trainer_spec.model_prefix = '/spm/cc_all.32000/sentencepiece'
  path = tmp_path / 'altered.model'
  path.write_bytes(model.SerializeToString())
  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))
  with pytest.raises(errors.UserError,
                     match="altered copy of T5's own: sha256 expected d60acb"):
    vocabulary.model_path()


def test_a_model_without_padding(monkeypatch, tmp_path):
  path = tiny_vocabulary.write(
      tmp_path / 'plain.model', pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
  monkeypatch.setenv('MTF_CONV_VOCAB', path)
  with pytest.raises(errors.UserError,
                     match=r'pad_id \(=-1\) must be 0 and eos_id \(=2\) must'):
    vocabulary.model_path()


def test_no_network(no_network):
  start = time.monotonic()
  with pytest.raises(errors.UserError) as error:
    vocabulary.model_path()
  assert time.monotonic() - start < 5
  assert str(error.value) == (
      "T5's vocabulary comes from storage.googleapis.com, which does not "
      "answer; T5's vocabulary comes from huggingface.co, which does not "
      'answer: set MTF_CONV_VOCAB, or bind '
      'mtf_conv.vocabulary.sentencepiece_model_path, to a file you have, or '
      'make one by mtf_conv train_vocabulary')


def test_nothing_goes_online_unless_it_may(no_network):
  with pytest.raises(errors.UserError, match='No such file or directory'):
    vocabulary.model_path(download=False)


def test_t5s_own_is_downloaded_once(bucket, models, monkeypatch):
  with open(models[0], 'rb') as f:
    content = f.read()
  monkeypatch.setattr(
      vocabulary, 'T5_SHA256', hashlib.sha256(content).hexdigest())
  bucket.write_bytes(content)
  path = vocabulary.model_path()
  assert path == vocabulary.cache_path()
  bucket.unlink()
  assert vocabulary.model_path() == path


def test_the_second_source_has_the_same_file(bucket, models, monkeypatch):
  with open(models[0], 'rb') as f:
    content = f.read()
  monkeypatch.setattr(
      vocabulary, 'T5_SHA256', hashlib.sha256(content).hexdigest())
  bucket.with_name('spiece.model').write_bytes(content)
  monkeypatch.setenv('MTF_CONV_VOCAB_SOURCES', 'bucket')
  with pytest.raises(errors.UserError, match='spm.model .*404'):
    vocabulary.model_path()
  for order in 'hub, bucket', '':
    monkeypatch.setenv('MTF_CONV_VOCAB_SOURCES', order)
    path = vocabulary.model_path()
    assert path == vocabulary.cache_path()
    os.remove(path)


def test_an_unknown_source(monkeypatch):
  monkeypatch.setenv('MTF_CONV_VOCAB_SOURCES', 'bukket')
  with pytest.raises(errors.UserError, match="did you mean 'bucket'"):
    vocabulary.model_path()


def test_a_web_page_in_the_place_of_the_file(bucket):
  """A proxy may answer with one, for any address."""
  page = bucket.with_name('page.html')
  page.write_text('<html>blocked</html>')
  with pytest.raises(errors.UserError, match='a web page came in its place'):
    network.download(
        [vocabulary.SOURCES['hub'].replace('spiece.model', page.name)],
        bucket.with_name('file'), 'the file', 'do something else')


class Refuses(http.server.BaseHTTPRequestHandler):
  """A proxy that lets nothing through."""

  def do_CONNECT(self):
    self.send_error(403)

  do_GET = do_CONNECT

  def log_message(self, *args):
    pass


@pytest.mark.parametrize('url, problem', [
    ('https://host/file', 'Tunnel connection failed: 403 Forbidden'),
    ('http://host/file', 'HTTP Error 403: Forbidden')])
def test_a_proxy_that_refuses(url, problem, monkeypatch, tmp_path):
  with http.server.HTTPServer(('127.0.0.1', 0), Refuses) as proxy:
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setattr(urllib.request, '_opener', None)  # Keeps its proxies.
    for name in 'http_proxy', 'https_proxy':
      monkeypatch.setenv(name, f'http://127.0.0.1:{proxy.server_port}')
    with pytest.raises(errors.UserError) as error:
      network.download([url], tmp_path / 'file', 'the file', 'give --raw_dir')
    proxy.shutdown()
  assert re.fullmatch(
      rf'the file cannot be had from {url} \(.*{problem}.*\): give --raw_dir',
      str(error.value))
  assert not list(tmp_path.iterdir())


def test_prepared_from_a_folder(models, monkeypatch, tmp_path, capsys):
  with open(models[0], 'rb') as f:
    content = f.read()
  given = tmp_path / 'raw'
  given.mkdir()
  command = ['mtf_conv', 'prepare', 'vocabulary', f'--raw_dir={given}']
  assert cli.main(command) == 1
  assert 'spiece.model does not exist: --raw_dir' in capsys.readouterr().err
  (given / 'spiece.model').write_bytes(content)
  assert cli.main(command) == 1
  assert "is not T5's vocabulary: sha256" in capsys.readouterr().err
  monkeypatch.setattr(
      vocabulary, 'T5_SHA256', hashlib.sha256(content).hexdigest())
  for said in 'is in', 'is there already:':
    assert cli.main(command) == 0
    assert capsys.readouterr().out == (
        f"T5's vocabulary {said} {vocabulary.cache_path()}\n")
  with open(vocabulary.model_path(), 'rb') as f:
    assert f.read() == content


def test_a_download_that_is_something_else_leaves_nothing(bucket, tmp_path):
  bucket.write_bytes(b'please log in')
  with pytest.raises(errors.UserError,
                     match='has changed: sha256 expected .*; .*404'):
    vocabulary.model_path()
  bucket.unlink()
  with pytest.raises(errors.UserError, match='404'):
    vocabulary.model_path()
  assert not list((tmp_path / 'cache' / 'mtf_conv').iterdir())


def test_the_way_to_a_host_leads_through_its_proxy(monkeypatch):
  monkeypatch.setenv('https_proxy', 'proxy.example:3128')
  assert network._gateway('https://host/x') == ('proxy.example', 3128)
  assert network._gateway('http://host/x') == ('host', 80)
  monkeypatch.setenv('no_proxy', 'host')
  assert network._gateway('https://host/x') == ('host', 443)


def test_t5s_vocabulary(data_dir, monkeypatch):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', f'{data_dir}/t5_vocab/sentencepiece.model')
  vocab = vocabulary.ConfiguredVocabulary()
  assert vocab.vocab_size == 32100
  assert vocab.encode('Hello world <extra_id_0>') == [8774, 296, 32099]
