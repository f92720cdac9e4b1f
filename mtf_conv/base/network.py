"""The only way of this package to the network: bounded, and clear when down."""

import os
import socket
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

import tqdm

from mtf_conv.base import errors, files

_TIMEOUT_SECONDS = 5


def _gateway(url):
  """Returns (host, port) of what a request for `url` connects to first."""
  parts = urllib.parse.urlsplit(url)
  proxy = urllib.request.getproxies().get(parts.scheme)
  if proxy and not urllib.request.proxy_bypass(parts.hostname):
    parts = urllib.parse.urlsplit(proxy if '//' in proxy else f'http://{proxy}')
  return parts.hostname, parts.port or {'https': 443}.get(parts.scheme, 80)


def _connects(address):
  """Whether a connection to (host, port) opens within _TIMEOUT_SECONDS."""
  opened = threading.Event()

  def connect():
    try:
      with socket.create_connection(address, timeout=_TIMEOUT_SECONDS):
        opened.set()
    except OSError:
      pass

  # A thread, because looking up the host's name knows no time-out.
  thread = threading.Thread(target=connect, daemon=True)
  thread.start()
  thread.join(_TIMEOUT_SECONDS)
  return opened.is_set()


def require(url, what, remedy):
  """Answers within five seconds whether the host of `url` can be reached.

  The libraries below retry for minutes where there is no network, so this is
  called before each of them.

  Args:
    url: what would be read; only its scheme and host matter.
    what: what needs it, the subject of the error message.
    remedy: what to do without a network.

  Raises:
    errors.UserError: the host cannot be reached.
  """
  if not _connects(_gateway(url)):
    host = urllib.parse.urlsplit(url).hostname
    raise errors.UserError(
        f'{what} comes from {host}, which does not answer: {remedy}')


def download(url, path, what, remedy, sha256=None):
  """Downloads one file, whole or not at all, with a progress bar.

  Args:
    url: where the file is.
    path: where it goes; its folder is made.
    what: what the file is, the subject of the error message.
    remedy: what to do when it cannot be had.
    sha256: the checksum it must have, if known.

  Raises:
    errors.UserError: the host cannot be reached, or sends something else.
  """
  require(url, what, remedy)
  folder = os.path.dirname(os.path.abspath(path))
  os.makedirs(folder, exist_ok=True)
  partial = tempfile.NamedTemporaryFile(dir=folder, delete=False)
  try:
    with partial, urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as page:
      size = page.headers.get('Content-Length')
      with tqdm.tqdm(desc=what, total=int(size) if size else None, unit='B',
                     unit_scale=True) as bar:
        while chunk := page.read(1 << 20):
          partial.write(chunk)
          bar.update(len(chunk))
    found = files.sha256(partial.name)
    if sha256 and found != sha256:
      raise errors.UserError(
          f'{what} from {url} has changed: sha256 expected {sha256}, found '
          f'{found}. {remedy}')
    os.replace(partial.name, path)
  except (OSError, urllib.error.URLError) as error:
    raise errors.UserError(
        f'{what} cannot be had from {url} ({error}): {remedy}') from error
  finally:
    if os.path.exists(partial.name):
      os.remove(partial.name)
