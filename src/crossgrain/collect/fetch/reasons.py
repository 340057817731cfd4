"""Why a request gave nothing, in few fixed words, and which of these reasons may pass if one asks again later."""

BAD_URL = "bad URL"
SCHEME = "scheme is not http or https"
CREDENTIALS = "credentials in URL"
PORT = "port not allowed"
ADDRESS = "address not public"
UNKNOWN_HOST = "unknown host"
TLS = "TLS error"
BAD_RESPONSE = "bad response"
BAD_REDIRECT = "bad redirect"
TOO_MANY_REDIRECTS = "too many redirects"
TOO_MANY_BYTES = "too many bytes"
CONTENT_TYPE = "content type not wanted"
CONTENT_ENCODING = "content encoding not wanted"
EMPTY = "empty body"
NOT_FOUND = "not found"
FORBIDDEN = "forbidden"
CLIENT_ERROR = "request refused"
ROBOTS = "opted out: robots.txt"
ROBOTS_AI = "opted out: robots.txt for AI agents"

NAME_SERVER = "name server error"
CONNECT_FAILED = "connect failed"
CONNECT_TIMEOUT = "connect timeout"
CONNECTION_LOST = "connection lost"
TRUNCATED = "truncated body"
TOO_SLOW = "too slow"
TIMEOUT = "timeout"
TOO_MANY_REQUESTS = "too many requests"
SERVER_ERROR = "server error"
CIRCUIT_OPEN = "host failed too often"
ROBOTS_UNREACHABLE = "robots.txt unreachable"
CRAWL_DELAY = "crawl delay too long"
SHARD_DEADLINE = "shard deadline"
FETCHER_ERROR = "fetcher error"

# What a later run may find gone; `crossgrain collect retry` repeats these and no others.
TRANSIENT = frozenset(
    {
        NAME_SERVER,
        CONNECT_FAILED,
        CONNECT_TIMEOUT,
        CONNECTION_LOST,
        TRUNCATED,
        TOO_SLOW,
        TIMEOUT,
        TOO_MANY_REQUESTS,
        SERVER_ERROR,
        CIRCUIT_OPEN,
        ROBOTS_UNREACHABLE,
        CRAWL_DELAY,
        SHARD_DEADLINE,
        FETCHER_ERROR,
    }
)
# Asked again within the same run, after a pause. A slow or silent server is not: it would be waited for again.
ASKED_AGAIN = frozenset({NAME_SERVER, CONNECT_FAILED, CONNECTION_LOST, TRUNCATED, TOO_MANY_REQUESTS, SERVER_ERROR})
# What opens the circuit of a domain when it comes again and again: the server says no, or is not there.
STRIKES = frozenset(
    {FORBIDDEN, TOO_MANY_REQUESTS, SERVER_ERROR, CONNECT_FAILED, CONNECT_TIMEOUT, CONNECTION_LOST, TIMEOUT, TOO_SLOW}
)


class FetchError(Exception):
    """A request that gave nothing: `reason` is one of this module's or an opt-out; `detail` varies.

    `retry_after`: seconds that the server asks to wait, 0 where it does not say; `settled`: asked often enough.
    """

    def __init__(
        self, reason: str, detail: str = "", *, status: int = 0, retry_after: float = 0.0, settled: bool = False
    ):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.settled = settled

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def of_status(status: int, retry_after: float = 0.0) -> FetchError:
    """The error that an HTTP status other than success or a redirect stands for."""
    if status in (404, 410):
        reason = NOT_FOUND
    elif status in (401, 402, 403, 407, 451):
        reason = FORBIDDEN
    elif status == 429:
        reason = TOO_MANY_REQUESTS
    elif status in (408, 425) or status >= 500:
        reason = SERVER_ERROR
    else:
        reason = CLIENT_ERROR if status >= 400 else BAD_RESPONSE
    return FetchError(reason, f"status {status}", status=status, retry_after=retry_after)
