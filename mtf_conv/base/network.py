"""The only way of this package to the network: bounded, and clear when down."""

import http.client
import os
import socket
import tempfile
import threading
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
    raise errors.UserError(f'{_silent(url, what)}: {remedy}')


def _silent(url, what):
  host = urllib.parse.urlsplit(url).hostname
  return f'{what} comes from {host}, which does not answer'


def download(urls, path, what, remedy, sha256=None):
  """Downloads one file, whole or not at all, with a progress bar.

  Args:
    urls: where the file is; each is tried when those before it fail.
    path: where it goes; its folder is made.
    what: what the file is, the subject of the error message.
    remedy: what to do when it cannot be had.
    sha256: the checksum it must have, if known.

  Raises:
    errors.UserError: no host can be reached, or they send something else.
  """
  problems = []
  for url in urls:
    problem = _download(url, path, what, sha256)
    if not problem:
      return
    problems.append(problem)
  raise errors.UserError(f'{"; ".join(problems)}: {remedy}')


def _download(url, path, what, sha256):
  """Downloads from one address; returns what went wrong, None if nothing."""
  if not _connects(_gateway(url)):
    return _silent(url, what)
  folder = os.path.dirname(os.path.abspath(path))
  os.makedirs(folder, exist_ok=True)
  partial = tempfile.NamedTemporaryFile(dir=folder, delete=False)
  try:
    with partial, urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as page:
      if page.headers.get_content_type() == 'text/html':
        return (f'{what} cannot be had from {url} (a web page came in its '
                'place, as a proxy sends it)')
      size = page.headers.get('Content-Length')
      with tqdm.tqdm(desc=what, total=int(size) if size else None, unit='B',
                     unit_scale=True) as bar:
        while chunk := page.read(1 << 20):
          partial.write(chunk)
          bar.update(len(chunk))
    found = files.sha256(partial.name)
    if sha256 and found != sha256:
      return (f'{what} from {url} has changed: sha256 expected {sha256}, found '
              f'{found}')
    os.replace(partial.name, path)
  except (OSError, http.client.HTTPException) as error:
    return f'{what} cannot be had from {url} ({error})'
  finally:
    if os.path.exists(partial.name):
      os.remove(partial.name)
  return None
