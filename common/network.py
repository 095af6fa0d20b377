"""A check that a server can be reached, so that a download without network fails in seconds, not after long retries."""

import threading
import urllib.error
import urllib.request


def require_network(url: str, *, purpose: str, remedy: str, timeout: float = 8.0) -> None:
    """Raise ValueError with the remedy unless ``url``'s server answers within ``timeout`` seconds.

    The request runs in a thread of its own, since a name lookup can block for longer than any socket timeout. Proxy
    variables of the environment are honoured. Any answer counts, an HTTP error too: the server was reached.
    """
    answers = []

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answers:
        host = urllib.request.urlparse(url).netloc
        raise ValueError(f"{purpose} needs the network, and {host} cannot be reached. {remedy}")
