"""The calls that this application makes to Beseda, and the tokens that it issues."""

import json
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import jwt
from django.conf import settings

# A leaked token can be used for this long at most. The page fetches the next one by itself.
TOKEN_SECONDS = 600
# Per attempt. It is short, because a request of a browser waits for it.
TIMEOUT_SECONDS = 5
# Attempts per call, with a pause between two of them.
ATTEMPTS = 3


class BesedaError(Exception):
    """Beseda refused a call, or could not be reached (`code` is `unavailable`)."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


def user_id(user):
    """Returns the user's id in Beseda. It must never change and never be given to another user."""
    return str(user.public_id)


def user_token(user):
    """Issues a token for this user's browser."""
    return _sign(user_id(user), TOKEN_SECONDS, name=user.get_full_name() or user.username)


def name_user(user):
    """Sends a new user, or a user's new name, to Beseda."""
    _call("PUT", f"/users/{_path(user)}/", {"name": user.get_full_name() or user.username})


def name_users(users):
    """Does the same for up to 1,000 users at once."""
    _call("POST", "/users/", {"users": [
        {"user_id": user_id(user), "name": user.get_full_name() or user.username} for user in users
    ]})


def open_chat(first, second):
    """Opens the chat of two users, unless they have one, and returns its `chat_id`."""
    return _call("POST", "/chats/", {"user_ids": [user_id(first), user_id(second)]})["chat_id"]


def revoke_tokens(user):
    """Revokes all tokens issued so far, and closes the sockets opened with them."""
    _call("POST", f"/users/{_path(user)}/revoke_tokens/")


def erase_user(user):
    """Erases a user. Their texts are gone when this returns."""
    try:
        _call("DELETE", f"/users/{_path(user)}/")
    except BesedaError as error:
        # Beseda has never known this user, so there is nothing to erase.
        if error.code != "user_not_found":
            raise


def _path(user):
    return quote(user_id(user), safe="")


def _sign(subject, seconds, **claims):
    # `iat` keeps its fraction of a second: a token issued right after a revocation must be newer.
    now = time.time()
    claims |= {"sub": subject, "iat": now, "exp": now + seconds}
    return jwt.encode(claims, settings.BESEDA_SECRET, algorithm="HS256")


def _call(method, path, body=None):
    """Calls Beseda as the application itself. It may repeat a call, as all of them are idempotent."""
    request = Request(
        f"{settings.BESEDA_URL}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {_sign('shop', 60, scope='chat:admin')}",
                 "Content-Type": "application/json"},
    )
    for attempt in range(1, ATTEMPTS + 1):
        pause = attempt * 0.2  # seconds
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as failure:
            problem = _problem(failure)
            error = BesedaError(problem.get("code", "unknown"), problem.get("detail", failure.reason))
            if failure.code not in (429, 502, 503, 504):
                raise error from None
            pause = min(problem.get("retry_after_ms", 0) / 1000, 2) or pause
        except (URLError, OSError) as failure:
            error = BesedaError("unavailable", str(failure))
        if attempt < ATTEMPTS:
            time.sleep(pause)
    raise error


def _problem(failure):
    """Reads the problem document of a failure. A balancer's failure may not be JSON."""
    try:
        return json.loads(failure.read())
    except ValueError:
        return {}
